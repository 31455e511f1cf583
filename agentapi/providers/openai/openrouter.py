"""OpenRouter: Chat Completions at another URL, with another key."""

from __future__ import annotations

from typing import Final

from agentapi.environment import variable
from agentapi.providers.errors import missing_key
from agentapi.providers.openai.client import OpenAIProvider

BASE_URL: Final = "https://openrouter.ai/api/v1"
DEFAULT_MODEL: Final = "openrouter/auto"


def openrouter_from_environment() -> OpenAIProvider:
    """Create a client from `OPENROUTER_API_KEY`, `OPENROUTER_BASE_URL` and `OPENROUTER_MODEL`.

    They are read from the environment or from `.env`.

    Raises:
        ProviderMisconfigured: No key is set.
    """
    key = variable("OPENROUTER_API_KEY")
    if not key:
        raise missing_key("openrouter", "OPENROUTER_API_KEY")
    return OpenAIProvider(
        name="openrouter",
        api_key=key,
        base_url=variable("OPENROUTER_BASE_URL") or BASE_URL,
        default_model=variable("OPENROUTER_MODEL") or DEFAULT_MODEL,
        key_path="/key",
    )
