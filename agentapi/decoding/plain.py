"""Text and JSON from outside, made fit to be written down.

Models, tools, servers and hooks give what JSON in UTF-8 cannot say: halves of characters, integers
of any size, objects. It is replaced here, where it enters, so that nothing that comes later breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.errors import AgentAPIError

DEEPEST: Final = 100
"""How deep values may be nested; orjson writes 254 levels, and ours come around these."""

MOST_COUNTED: Final = 2**53
"""Largest count that every reader of JSON, Lua included, takes as it is."""

_AROUND: Final = 16
"""Levels that are around a value when it is stored."""


class TooDeep(AgentAPIError, ValueError):
    """A value is nested too deeply to be stored."""

    code = "too_deep"


def clean_text(text: str) -> str:
    """The text with halves of characters joined, and replaced where the other half is missing."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut(text: str, longest: int) -> str:
    """The text, cut off behind `longest` bytes of UTF-8, with a note that says so."""
    if len(text) * 4 <= longest:
        return text
    encoded = text.encode()
    if len(encoded) <= longest:
        return text
    kept = encoded[:longest].decode(errors="ignore")
    return f"{kept}\n[cut off: {len(encoded)} bytes, the limit is {longest}]"


class Pieces:
    """Text in pieces: half a character at the end of one waits for the next."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        """What can be shown now."""
        text = self._half + piece
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return clean_text(text[: len(text) - len(self._half)])

    def end(self) -> str:
        """What is left."""
        rest, self._half = self._half, ""
        return clean_text(rest)


def plain(value: Any) -> Any:
    """The value as JSON that can be stored: as it is if it can, else with the nearest that can.

    Raises:
        TooDeep: It is nested too deeply, or within itself.
    """
    return value if _is_plain(value) else _plain(value, 0)


def _is_plain(value: Any) -> bool:
    inside = value
    for _ in range(_AROUND):
        inside = [inside]
    try:
        orjson.dumps(inside)
    except (TypeError, RecursionError):
        return False
    return True


def _plain(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise TooDeep(f"the value is nested more than {DEEPEST} levels deep")
    match value:
        case None | bool() | float():
            return value
        case str():
            return clean_text(value)
        case int():
            return value if -(2**63) <= value < 2**64 else _as_float(value)
        case Mapping():
            return {clean_text(str(key)): _plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item, depth + 1) for item in value]
        case _:
            return value if _is_plain(value) else clean_text(str(value))


def _as_float(value: int) -> float | None:
    """As readers of JSON take an integer of more than 64 bits."""
    try:
        return float(value)
    except OverflowError:
        return None


def clean_message(message: AssistantMessage) -> AssistantMessage:
    """A model's answer as it can be stored."""
    content = clean_text(message.content)
    model = None if message.model is None else clean_text(message.model)
    if (
        content is message.content
        and model is message.model
        and message.tool_calls == ()
        and message.provider_data == {}
    ):
        # As most answers are.
        return message
    try:
        data = dict(plain(message.provider_data))
    except TooDeep:
        # The provider does without, as for a message of another provider.
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
    """Tokens as they can be added up: whole numbers from 0 to `MOST_COUNTED`."""
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
