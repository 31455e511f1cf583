"""Model providers: the protocol, the registry, and the built-in ones."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.providers.base import (
        CallDelta,
        CheckedProvider,
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
    "CheckedProvider",
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.providers.base": (
            "CallDelta",
            "CheckedProvider",
            "FinishReason",
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
        ),
        "agentapi.providers.builtin": (
            "providers",
            "register_provider",
        ),
        "agentapi.providers.choice": (
            "ModelChoice",
            "check_options",
            "model_choices",
            "options_for",
        ),
    },
)
