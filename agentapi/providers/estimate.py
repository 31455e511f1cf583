"""Estimates of what a model call will cost, before the provider counts its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentapi.conversation.messages import Message
from agentapi.conversation.window import BYTES_PER_TOKEN, estimate_tokens
from agentapi.providers.base import ModelRequest, ToolSpec

_BOUNDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens")


def output_bound(options: Mapping[str, Any]) -> int | None:
    """How many tokens the options of a request allow for the reply; None if they set no limit."""
    for name in _BOUNDS if options else ():
        if type(value := options.get(name)) is int and value > 0:
            return value
    return None


def reply_bound(request: ModelRequest) -> int | None:
    """How many tokens a request allows for the reply; None if it sets no limit."""
    own, asked = output_bound(request.options), request.sampling.max_output_tokens
    if own is None or asked is None:
        return asked if own is None else own
    return min(own, asked)


def calibrated(counted: int, estimate: int) -> float | None:
    """The provider's count of tokens divided by our estimate; None without a count.

    Bounded, so that one wrong count of a provider does not distort all later windows.
    """
    if not counted or not estimate:
        return None
    return min(max(counted / estimate, 0.25), 4.0)


def estimate_request(
    system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]
) -> int:
    """Estimate how many tokens a whole model call costs."""
    described = sum([len(tool.description) for tool in tools])
    size = len(system_prompt.encode()) + described + 200 * len(tools)
    return size // BYTES_PER_TOKEN + estimate_tokens(messages)
