"""Sizes of models: how many tokens they read and write. Users add their own (AGENTAPI_MODELS)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from agentapi.turns.model_size import ModelSize

OTHER: Final = "*"
"""The name that stands for all models without an entry of their own."""


def _size(context: int, output: int) -> ModelSize:
    return ModelSize(context=context, output=output)


SIZES: Final[Mapping[str, ModelSize]] = {
    "gpt-5": _size(400_000, 128_000),
    "gpt-5-chat": _size(128_000, 16_384),
    "gpt-4.1": _size(1_047_576, 32_768),
    "gpt-4o": _size(128_000, 16_384),
    "gpt-4.5": _size(128_000, 16_384),
    "gpt-4-turbo": _size(128_000, 4_096),
    "gpt-4": _size(8_192, 4_096),
    "gpt-4-32k": _size(32_768, 4_096),
    "gpt-3.5-turbo": _size(16_385, 4_096),
    "gpt-oss": _size(131_072, 32_768),
    "chatgpt-4o": _size(128_000, 16_384),
    "o1": _size(200_000, 100_000),
    "o3": _size(200_000, 100_000),
    "o4": _size(200_000, 100_000),
    "gemini": _size(1_114_112, 65_536),
    "gemini-2.0": _size(1_056_768, 8_192),
    "gemini-1.5": _size(1_056_768, 8_192),
    "gemma-3": _size(131_072, 8_192),
    "gemma-2": _size(8_192, 4_096),
    "claude": _size(200_000, 32_000),
    "deepseek": _size(131_072, 32_768),
    "llama-3": _size(8_192, 4_096),
    "llama-3.1": _size(131_072, 8_192),
    "llama-3.2": _size(131_072, 8_192),
    "llama-3.3": _size(131_072, 8_192),
    "llama-4": _size(1_048_576, 16_384),
    "mistral": _size(32_768, 8_192),
    "mistral-large": _size(131_072, 16_384),
    "mistral-medium": _size(131_072, 16_384),
    "mistral-small": _size(131_072, 16_384),
    "mistral-nemo": _size(131_072, 16_384),
    "qwen3": _size(131_072, 32_768),
    "qwen-2.5": _size(32_768, 8_192),
    "qwen2.5": _size(32_768, 8_192),
    "grok": _size(131_072, 16_384),
    "kimi-k2": _size(131_072, 16_384),
    "glm-4": _size(131_072, 16_384),
    # The offline provider has no context limit unless its options set one.
    "offline-1": _size(1_000_000, 8_192),
    "script-1": _size(1_000_000, 8_192),
    OTHER: _size(128_000, 8_192),
}
"""Keyed by a prefix of the model's name, without its vendor; the longest match counts.

A size that is too small costs history. One that is too large costs a failed call, after which the
conversation remembers the real size (`agentapi.engine.fitting`). Providers with separate limits for
request and reply are listed with the sum of both.
"""

NO_SIZES: Final[Mapping[str, ModelSize]] = {}

LARGEST: Final = max(size.context for size in SIZES.values())
"""Tokens of the largest context in the table."""

_ENDS: Final = frozenset("-.:@")


def size_of(provider: str, model: str, own: Mapping[str, ModelSize]) -> ModelSize:
    """Look up a model's size.

    Args:
        provider: The provider's name.
        model: The provider's name of the model, such as ``gpt-5-mini`` or
            ``deepseek/deepseek-r1:free``.
        own: The user's table, keyed by ``provider:model``, a prefix of a model's name, or ``*``.
    """
    for name in _names(provider, model) if own else ():
        if name in own:
            return own[name]
    known = _known(provider, model)
    return known or own.get(OTHER, SIZES[OTHER])


@lru_cache(maxsize=256)
def _known(provider: str, model: str) -> ModelSize | None:
    return next((SIZES[name] for name in _names(provider, model) if name in SIZES), None)


def _names(provider: str, model: str) -> list[str]:
    bare = model.rpartition("/")[2].lower()
    return [f"{provider}:{model}", model, *_beginnings(bare)]


def _beginnings(name: str) -> list[str]:
    """The beginnings of a name that end where a part of it does, the longest first."""
    return [name[:end] for end in range(len(name), 0, -1) if end == len(name) or name[end] in _ENDS]
