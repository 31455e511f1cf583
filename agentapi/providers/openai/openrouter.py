"""OpenRouter: Chat Completions at another URL, with another key."""

from __future__ import annotations

import os
from typing import Final

from agentapi.providers.errors import missing_key
from agentapi.providers.openai.client import OpenAIProvider

BASE_URL: Final = "https://openrouter.ai/api/v1"
DEFAULT_MODEL: Final = "openrouter/auto"


def openrouter_from_environment() -> OpenAIProvider:
    """Create a client from `OPENROUTER_API_KEY`, `OPENROUTER_BASE_URL` and `OPENROUTER_MODEL`.

    Raises:
        ProviderMisconfigured: No key is set.
    """
    key = os.environ.get("OPENROUTER_API_KEY")
    if not key:
        raise missing_key("openrouter", "OPENROUTER_API_KEY")
    return OpenAIProvider(
        name="openrouter",
        api_key=key,
        base_url=os.environ.get("OPENROUTER_BASE_URL") or BASE_URL,
        default_model=os.environ.get("OPENROUTER_MODEL") or DEFAULT_MODEL,
    )
