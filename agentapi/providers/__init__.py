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
    TextReset,
    ToolSpec,
)
from agentapi.providers.builtin import providers, register_provider
from agentapi.providers.choice import ModelChoice, model_choices

__all__ = [
    "FinishReason",
    "ModelChoice",
    "ModelRequest",
    "ModelResponse",
    "Provider",
    "ProviderFactory",
    "ProviderRegistry",
    "StreamPart",
    "TextDelta",
    "TextReset",
    "ToolSpec",
    "model_choices",
    "providers",
    "register_provider",
]
