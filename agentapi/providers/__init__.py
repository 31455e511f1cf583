"""Model providers: the protocol, the registry, and the built-in ones."""

from agentapi.providers.base import (
    CallDelta,
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
    ToolUse,
)
from agentapi.providers.builtin import providers, register_provider
from agentapi.providers.choice import ModelChoice, check_options, model_choices, options_for

__all__ = [
    "CallDelta",
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
    "ToolUse",
    "check_options",
    "model_choices",
    "options_for",
    "providers",
    "register_provider",
]
