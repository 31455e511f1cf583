"""Makes a model's response and its token counts storable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.decoding.plain import TooDeep, clean_text, plain

MOST_COUNTED: Final = 2**53
"""Largest count that every JSON reader, including Lua, reads exactly."""


def clean_message(message: AssistantMessage) -> AssistantMessage:
    """Convert a model's response to a form that can be stored."""
    content = clean_text(message.content)
    model = None if message.model is None else clean_text(message.model)
    if (
        content is message.content
        and model is message.model
        and message.tool_calls == ()
        and message.provider_data == {}
    ):
        # The common case.
        return message
    try:
        data = dict(plain(message.provider_data))
    except TooDeep:
        # The provider works without it, as with a message of another provider.
        data = {}
    return replace(
        message,
        content=content,
        tool_calls=tuple(map(_clean_call, message.tool_calls)),
        provider_data=data,
        model=model,
    )


def _clean_call(call: ToolCall) -> ToolCall:
    malformed = None if call.malformed is None else clean_text(call.malformed)
    arguments: Mapping[str, Any] = {}
    try:
        arguments = dict(plain(call.arguments))
    except TooDeep as error:
        malformed = f"[{error}]"
    return ToolCall(
        id=clean_text(call.id),
        name=clean_text(call.name),
        arguments=arguments,
        malformed=malformed,
    )


def clean_usage(usage: Usage) -> Usage:
    """Limit token counts to whole numbers from 0 to `MOST_COUNTED`."""
    sent, got = _count(usage.input_tokens), _count(usage.output_tokens)
    cached = _count(usage.cached_tokens)
    if sent is usage.input_tokens and got is usage.output_tokens and cached is usage.cached_tokens:
        return usage
    return replace(usage, input_tokens=sent, output_tokens=got, cached_tokens=cached)


def _count(value: object) -> int:
    if type(value) is int and 0 <= value <= MOST_COUNTED:
        return value
    if not isinstance(value, int | float) or value != value:
        return 0
    return int(min(max(value, 0), MOST_COUNTED))
