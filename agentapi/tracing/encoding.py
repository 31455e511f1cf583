"""Spans as bytes of OTLP, written directly: the SDK's way takes several times as long for each.

Only what the spans of a turn have is written here: an identity, times, attributes, links, a status.
A span with more than that is `Unusual`, and the SDK encodes it. The numbers of fields and their
types are those of opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

# Ids, times, kind and flags have a fixed size.
_FIXED: Final = struct.Struct("<2s16s2s8scQcQcB2sI")
_TRACE_ID, _SPAN_ID, _BEGAN, _ENDED, _KIND, _FLAGS = (
    *(b"\x0a\x10", b"\x12\x08", b"\x39", b"\x41", b"\x30", b"\x85\x01"),
)
_STATE, _PARENT_ID, _NAME, _ATTRIBUTE, _LINK = b"\x1a", b"\x22\x08", b"\x2a", b"\x4a", b"\x6a"
_FAILED: Final = b"\x7a\x02\x18\x02"

_LINKED: Final = struct.Struct("<2s16s2s8scI")
_LINK_FLAGS: Final = b"\x35"

_SCOPE_SPANS, _RESOURCE_SPANS, _SPANS = b"\x12", b"\x0a", b"\x12"

_TEXT, _BOOL, _INT, _DOUBLE, _ARRAY, _ELEMENT = b"\x0a", b"\x10", b"\x18", b"\x21", b"\x2a", b"\x0a"
_KEY, _VALUE = b"\x0a", b"\x12"

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_INT_BITS: Final = 64

_KEPT: Final = 128
"""Maximum characters of a text whose encoding is cached. Short texts repeat in most spans."""


class Unusual(Exception):
    """This span is one for the SDK to encode."""


def encoded_span(
    ids: tuple[int, int, int],
    times: tuple[int, int],
    name: str,
    *,
    kind: int,
    flags: int,
    state: str,
    attributes: Mapping[str, Any],
    failed: bool,
) -> bytes:
    """A span without links.

    Args:
        ids: Of its trace, itself, and its parent, which is 0 for none.
        times: When it began and ended, in nanoseconds since 1970.
        name: Its name.
        kind: Its kind, as the protocol numbers it.
        flags: See `flags_of`.
        state: The trace's state; empty for none.
        attributes: What is known about it.
        failed: Whether its status is an error.

    Raises:
        Unusual: A name, an attribute or a number is none that this module encodes.
    """
    trace_id, span_id, parent_id = ids
    try:
        parts = [
            _FIXED.pack(
                *(_TRACE_ID, trace_id.to_bytes(16, "big"), _SPAN_ID, span_id.to_bytes(8, "big")),
                *(_BEGAN, times[0], _ENDED, times[1], _KIND, kind, _FLAGS, flags),
            ),
            _text(_NAME, name),
        ]
        if parent_id:
            parts += (_PARENT_ID, parent_id.to_bytes(8, "big"))
        if state:
            parts.append(_text(_STATE, state))
        for key, value in attributes.items():
            parts.append(_attribute(key, value))
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise Unusual from error
    if failed:
        parts.append(_FAILED)
    return b"".join(parts)


def encoded_link(trace_id: int, span_id: int, *, flags: int) -> bytes:
    """A link without attributes, to be added to a span."""
    link = _LINKED.pack(
        *(_TRACE_ID, trace_id.to_bytes(16, "big"), _SPAN_ID, span_id.to_bytes(8, "big")),
        *(_LINK_FLAGS, flags),
    )
    return _delimited(_LINK, link)


def flags_of(*, remote: bool) -> int:
    """The flags of a span or a link that say whether its parent or target is another process's."""
    return _HAS_IS_REMOTE | _IS_REMOTE if remote else _HAS_IS_REMOTE


def element(span: bytes) -> bytes:
    """A span as `request` takes it."""
    return _delimited(_SPANS, span)


def request(resource: bytes, scope: bytes, spans: Sequence[bytes]) -> bytes:
    """A request that exports spans of one scope.

    Args:
        resource: A `ResourceSpans` without spans.
        scope: A `ScopeSpans` without spans.
        spans: Each from `element`.
    """
    of_scope = _delimited(_SCOPE_SPANS, b"".join((scope, *spans)))
    return _delimited(_RESOURCE_SPANS, resource + of_scope)


def _attribute(key: str, value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        return _kept(key, value) if len(value) <= _KEPT else _pair(key, _text(_TEXT, value))
    if kind is int or kind is bool:
        return _kept(key, value)
    if kind is float:
        return _pair(key, struct.pack("<cd", _DOUBLE, value))
    if kind is list or kind is tuple:
        texts = tuple(value)
        few = len(texts) == 1 and len(texts[0]) <= _KEPT
        return _kept_texts(key, texts) if few else _texts(key, texts)
    raise TypeError


# Equal numbers of different types are written differently.
@lru_cache(maxsize=4096, typed=True)
def _kept(key: str, value: str | int) -> bytes:
    if isinstance(value, bool):
        return _pair(key, _BOOL + bytes((value,)))
    if isinstance(value, int):
        return _pair(key, _INT + _number(value))
    return _pair(key, _text(_TEXT, value))


def _texts(key: str, values: tuple[Any, ...]) -> bytes:
    if not all(type(value) is str for value in values):
        raise TypeError
    elements = [_delimited(_ELEMENT, _text(_TEXT, value)) for value in values]
    return _pair(key, _delimited(_ARRAY, b"".join(elements)))


_kept_texts: Final = lru_cache(maxsize=256, typed=True)(_texts)


def _pair(key: str, value: bytes) -> bytes:
    return _delimited(_ATTRIBUTE, _text(_KEY, key) + _delimited(_VALUE, value))


def _text(tag: bytes, text: str) -> bytes:
    return _delimited(tag, text.encode())


def _delimited(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _number(number: int) -> bytes:
    if not -(1 << _INT_BITS - 1) <= number < 1 << _INT_BITS - 1:
        raise OverflowError
    return _varint(number & (1 << _INT_BITS) - 1)


def _varint(number: int) -> bytes:
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7)) if number > 0x7F else bytes((number,))
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
