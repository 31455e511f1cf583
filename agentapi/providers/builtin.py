"""The registry that agents use, with the built-in providers.

Each SDK is imported when its provider is first used: openai alone costs more than a second and 65
MiB, which a worker that never calls it should not spend.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Final

from agentapi.providers.base import Provider, ProviderFactory, ProviderRegistry
from agentapi.turns.request_options import SAMPLING


def _offline() -> Provider:
    from agentapi.providers.offline import OfflineProvider

    return OfflineProvider.from_environment()


def _openai() -> Provider:
    from agentapi.providers.openai.client import OpenAIProvider

    return OpenAIProvider.from_environment()


def _openrouter() -> Provider:
    from agentapi.providers.openai.openrouter import openrouter_from_environment

    return openrouter_from_environment()


def _gemini() -> Provider:
    from agentapi.providers.gemini.client import GeminiProvider

    return GeminiProvider.from_environment()


PROVIDER_KEYS: Final = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")
"""Variables with the keys of built-in providers."""

_MODULES: Final = {
    "openai": "agentapi.providers.openai.client",
    "openrouter": "agentapi.providers.openai.openrouter",
    "gemini": "agentapi.providers.gemini.client",
}
_GEMINI: Final = SAMPLING - {"logit_bias", "verbosity"}

providers = ProviderRegistry()
for _name, _factory, _sampling in (
    # Its reply is deterministic: nothing is sampled.
    ("offline", _offline, SAMPLING),
    ("openai", _openai, SAMPLING),
    ("openrouter", _openrouter, SAMPLING),
    ("gemini", _gemini, _GEMINI),
):
    providers.register(_name, _factory, _sampling)


def preload(names: Iterable[str]) -> None:
    """Import the SDKs of built-in providers now, rather than during the first model call.

    Args:
        names: Names of providers; those that are not built in are skipped.
    """
    for name in names:
        if name in _MODULES:
            importlib.import_module(_MODULES[name])


def register_provider(name: str, factory: ProviderFactory, *, sampling: Iterable[str] = ()) -> None:
    """Register a provider for use in agents.

    Call this in a module that `AGENTAPI_AGENTS` names, so that every worker knows the provider.

    Args:
        name: The name for ``Agent(provider=...)``: not empty and without a colon. Replaces an
            existing provider of that name.
        factory: Makes the provider. Called once per process and event loop, when an agent first
            needs it.
        sampling: The fields of `ModelRequest.sampling` that its clients support, such as
            ``["temperature", "max_output_tokens"]``. The gateway tells clients that the others are
            ignored.

    Raises:
        InvalidAgent: The name or a field is not valid.
    """
    providers.register(name, factory, sampling)
