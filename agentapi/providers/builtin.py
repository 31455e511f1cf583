"""The registry that agents use, with the providers that come with the package.

Each SDK is imported when its provider is first used: openai alone costs over a second and
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
    """Make a provider of one's own known to agents.

    Args:
        name: What agents say as ``provider=``; an existing name is replaced.
        factory: Called once a process and event loop, when an agent first needs it.
    """
    providers.register(name, factory)
