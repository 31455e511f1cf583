"""Converts text and values from outside into JSON that can be stored.

Models, tools, servers and hooks produce values that JSON in UTF-8 cannot express: lone surrogates,
integers of any size, objects. They are replaced here, at the boundary, so that later code cannot
fail on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from agentapi.errors import AgentAPIError

DEEPEST: Final = 100
"""Maximum nesting of values. orjson writes 254 levels, and the runtime's own records use some of
them."""

_AROUND: Final = 16
"""Levels of nesting that a record adds around a stored value."""


class TooDeep(AgentAPIError, ValueError):
    """A value is nested too deeply to be stored."""

    code = "too_deep"


def clean_text(text: str) -> str:
    """Join surrogate pairs, and replace lone surrogates."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut(text: str, longest: int) -> str:
    """Truncate the text to `longest` bytes of UTF-8, with a note that says so."""
    if len(text) * 4 <= longest:
        return text
    encoded = text.encode()
    if len(encoded) <= longest:
        return text
    kept = encoded[:longest].decode(errors="ignore")
    return f"{kept}\n[cut off: {len(encoded)} bytes, the limit is {longest}]"


class Pieces:
    """Text in pieces: a high surrogate at the end of a piece waits for the next piece."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        """Add a piece; returns the text that can be shown now."""
        text = self._half + piece
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return clean_text(text[: len(text) - len(self._half)])

    def end(self) -> str:
        """Return the rest."""
        rest, self._half = self._half, ""
        return clean_text(rest)


def plain(value: Any) -> Any:
    """Convert a value to JSON that can be stored. Valid values are returned unchanged.

    Raises:
        TooDeep: It is nested too deeply, or contains itself.
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
    """The float that JSON readers produce for an integer of more than 64 bits."""
    try:
        return float(value)
    except OverflowError:
        return None
