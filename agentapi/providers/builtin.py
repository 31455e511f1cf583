"""The registry that agents use, with the built-in providers.

Each SDK is imported when its provider is first used: openai alone costs more than a second and
65 MiB, which a worker that never calls it should not pay.
"""

from __future__ import annotations

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


# What the models behind Gemini's API take differs too much for the effort of reasoning.
_GEMINI: Final = SAMPLING - {"logit_bias", "reasoning_effort", "verbosity"}

providers = ProviderRegistry()
for _name, _factory, _sampling in (
    # Its reply follows from the request: nothing is sampled.
    ("offline", _offline, SAMPLING),
    ("openai", _openai, SAMPLING),
    ("openrouter", _openrouter, SAMPLING),
    ("gemini", _gemini, _GEMINI),
):
    providers.register(_name, _factory, _sampling)


def register_provider(name: str, factory: ProviderFactory, *, sampling: Iterable[str] = ()) -> None:
    """Register a provider for use in agents.

    Args:
        name: The name for ``Agent(provider=...)``; replaces an existing provider of that name.
        factory: Called once per process and event loop, when an agent first needs it.
        sampling: The fields of `ModelRequest.sampling` that its clients support, such as
            ``["temperature", "max_output_tokens"]``. The gateway tells clients that the others are
            ignored.
    """
    providers.register(name, factory, sampling)
