"""The registry that agents use, with the built-in providers.

Each SDK is imported when its provider is first used: openai alone costs more than a second and
65 MiB, which a worker that never calls it should not pay.
"""

from __future__ import annotations

from agentapi.providers.base import Provider, ProviderFactory, ProviderRegistry


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


providers = ProviderRegistry()
for _name, _factory in {
    "offline": _offline,
    "openai": _openai,
    "openrouter": _openrouter,
    "gemini": _gemini,
}.items():
    providers.register(_name, _factory)


def register_provider(name: str, factory: ProviderFactory) -> None:
    """Register a provider for use in agents.

    Args:
        name: The name for ``Agent(provider=...)``; replaces an existing provider of that name.
        factory: Called once per process and event loop, when an agent first needs it.
    """
    providers.register(name, factory)
