"""Model providers: the protocol, the registry, and the built-in ones."""

from agentapi.providers.base import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    Provider,
    ProviderFactory,
    ProviderRegistry,
    StreamPart,
    TextDelta,
    ToolSpec,
)
from agentapi.providers.builtin import providers, register_provider

__all__ = [
    "FinishReason",
    "ModelRequest",
    "ModelResponse",
    "Provider",
    "ProviderFactory",
    "ProviderRegistry",
    "StreamPart",
    "TextDelta",
    "ToolSpec",
    "providers",
    "register_provider",
]
