"""What servers and providers answer, made fit to be stored, counted and sent again.

JSON allows more than can be kept: halves of characters, integers of any length, nesting of any
depth. An answer is looked at once, here, so that nothing behind it meets what it cannot write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from agentapi.errors import ProviderUnavailable
from agentapi.messages import AssistantMessage, ToolCall, Usage, dumps
from agentapi.providers.base import ModelResponse
from agentapi.text import clean

MOST_TOKENS: Final = 10**12
"""What a server says beyond that is not a count."""

LONGEST_ANSWER: Final = 33_554_432
"""Characters of one answer; no model writes that much, a server with a fault may."""

_UNWRITABLE: Final = "(arguments that cannot be written)"


def count(value: object) -> int:
    """A number of tokens as a server gives it; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    # Comparisons are false for NaN.
    return int(value) if 0 <= value <= MOST_TOKENS else 0


def kept(response: ModelResponse, provider: str) -> ModelResponse:
    """The response in a form that can be kept.

    Texts are cleaned, and arguments that cannot be written become `ToolCall.malformed`, which
    the model is told about.

    Args:
        response: What the provider gave.
        provider: Its name, for the error.

    Raises:
        ProviderUnavailable: It is not made of what a response is made of.
    """
    if not _is_whole(response):
        raise ProviderUnavailable(
            f"provider {provider!r} gave a response whose parts have the wrong types: expected "
            "text, calls with an id, a name and arguments, and counts of tokens",
            provider=provider,
        )
    usage = _usage(response.usage)
    if usage != response.usage:
        response = replace(response, usage=usage)
    if _can_be_kept(response.message):
        return response
    return replace(response, message=_repaired(response.message))


def _is_whole(response: ModelResponse) -> bool:
    message = response.message
    return (
        isinstance(message, AssistantMessage)
        and isinstance(message.content, str)
        and isinstance(message.tool_calls, tuple)
        and all(map(_is_call, message.tool_calls))
        and isinstance(message.provider_data, Mapping)
        and isinstance(response.usage, Usage)
    )


def _is_call(call: object) -> bool:
    return (
        isinstance(call, ToolCall)
        and isinstance(call.id, str)
        and isinstance(call.name, str)
        and isinstance(call.arguments, Mapping)
        and isinstance(call.malformed, str | None)
    )


def _usage(usage: Usage) -> Usage:
    counted = Usage(
        input_tokens=count(usage.input_tokens),
        output_tokens=count(usage.output_tokens),
        cached_tokens=count(usage.cached_tokens),
        cost=usage.cost,
    )
    return usage if counted == usage else counted


def _can_be_kept(message: AssistantMessage) -> bool:
    try:
        dumps(message)
    except (TypeError, RecursionError):
        return False
    return True


def _repaired(message: AssistantMessage) -> AssistantMessage:
    data = _cleaned(message.provider_data)
    return replace(
        message,
        content=clean(message.content),
        tool_calls=tuple(map(_repaired_call, message.tool_calls)),
        # What is sent back verbatim is made anew from the rest of the message.
        provider_data=data if isinstance(data, Mapping) and _is_writable(data) else {},
    )


def _repaired_call(call: ToolCall) -> ToolCall:
    arguments = _cleaned(call.arguments)
    malformed = call.malformed
    if not isinstance(arguments, Mapping) or not _is_writable(arguments):
        malformed, arguments = _written(call.arguments), {}
    return ToolCall(
        id=clean(call.id),
        name=clean(call.name),
        arguments=arguments,
        malformed=None if malformed is None else clean(malformed),
    )


def _is_writable(value: object) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, RecursionError):
        return False
    return True


def _written(value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return _UNWRITABLE


def _cleaned(value: object) -> object:
    """The value with all its texts cleaned; None when it is nested too deep."""
    try:
        return _clean_inside(value)
    except RecursionError:
        return None


def _clean_inside(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {_clean_inside(key): _clean_inside(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_clean_inside(inner) for inner in value]
        case _:
            return value
