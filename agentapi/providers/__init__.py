"""Model providers: the protocol, the registry, and the built-in ones."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.providers.base import (
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
    )
    from agentapi.providers.builtin import providers, register_provider
    from agentapi.providers.choice import ModelChoice, check_options, model_choices, options_for

__all__ = [
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
