"""Changes to valid documents and to their bytes.

A change does not know the document: it says "the value at place 7", counted modulo the places
that there are. So the same example can be applied to what a live server is about to answer, and
a failing one is short to print and to shrink.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz.values import CANARY, ODD, Pairs, encode


class Kind(StrEnum):
    """What is done at a place of a document."""

    REPLACE = "replace"
    REMOVE = "remove"
    ADD = "add"
    """An unknown field."""
    REPEAT = "repeat"
    """An item, or a key with another value."""
    WRAP = "wrap"
    """In a list."""
    NEST = "nest"
    """In an object."""
    RENAME = "rename"
    """The key."""
    SPLICE = "splice"
    """Into the middle of a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One change to a document."""

    kind: Kind
    place: int
    value: str = "text"


class ByteKind(StrEnum):
    """What is done to the bytes of a document."""

    CUT = "cut"
    FLIP = "flip"
    INSERT = "insert"
    DOUBLE = "double"
    DROP = "drop"


JUNK: Final = {
    "FF": b"\xff",
    "UTF-8 surrogate": b"\xed\xa0\xbd",
    "NUL": b"\x00",
    "byte order mark": b"\xef\xbb\xbf",
    "blank lines": b"\r\n\r\n",
    "field": b"data: ",
    "HTML": f"<html>{CANARY}</html>".encode(),
    "bracket": b"]",
    "quote": b'"',
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteChange:
    """One change to bytes; places are thousandths of the length."""

    kind: ByteKind
    place: int
    junk: str = "FF"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """What is done to a document on its way."""

    changes: tuple[Change, ...] = ()
    damage: tuple[ByteChange, ...] = field(default=())

    def document(self, valid: Any) -> Any:
        """The changed document, for `encode`."""
        found = copy.deepcopy(valid)
        for change in self.changes:
            found = _changed(found, change)
        return found

    def text(self, valid: Any) -> bytes:
        """The changed document as bytes."""
        return self.raw(encode(self.document(valid)).encode())

    def raw(self, data: bytes) -> bytes:
        """Changed bytes."""
        for change in self.damage:
            data = _changed_bytes(data, change)
        return data


_PLACES: Final = st.integers(0, 400)
_CHANGES: Final = st.builds(
    Change, kind=st.sampled_from(Kind), place=_PLACES, value=st.sampled_from(sorted(ODD))
)
_BYTES: Final = st.builds(
    ByteChange,
    kind=st.sampled_from(ByteKind),
    place=st.integers(0, 1000),
    junk=st.sampled_from(sorted(JUNK)),
)


def mutations(*, most: int = 3) -> st.SearchStrategy[Mutation]:
    """Changes to a document, and sometimes to its bytes."""
    documents = st.lists(_CHANGES, min_size=1, max_size=most).map(
        lambda found: Mutation(changes=tuple(found))
    )
    raw = st.lists(_BYTES, min_size=1, max_size=2).map(lambda found: Mutation(damage=tuple(found)))
    # Most documents stay JSON: what is none is refused by the first parser it meets.
    return st.one_of(documents, documents, documents, raw)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def _changed(document: Any, change: Change) -> Any:
    places = list(_places(document))
    path = places[change.place % len(places)]
    value = copy.deepcopy(ODD[change.value])
    if not path:
        return _at_root(document, change.kind, value)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    key = path[-1]
    match change.kind:
        case Kind.REMOVE:
            del parent[key]
        case Kind.REPEAT if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        case Kind.REPEAT:
            pairs = ((key, value), *parent.items(), (key, value))
            return _with(document, path[:-1], Pairs(pairs))
        case Kind.RENAME if isinstance(parent, dict):
            parent[f"{key}_{CANARY}"] = parent.pop(key)
        case _:
            parent[key] = _at_root(parent[key], change.kind, value)
    return document


def _at_root(found: Any, kind: Kind, value: Any) -> Any:
    match kind:
        case Kind.ADD if isinstance(found, dict):
            return {**found, CANARY: value}
        case Kind.ADD if isinstance(found, list):
            return [*found, value]
        case Kind.WRAP:
            return [found]
        case Kind.NEST:
            return {CANARY: found}
        case Kind.SPLICE if isinstance(found, str) and isinstance(value, str):
            half = len(found) // 2
            return found[:half] + value + found[half:]
        case _:
            return value


def _with(document: Any, path: Sequence[Any], value: Any) -> Any:
    if not path:
        return value
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return document


def _changed_bytes(data: bytes, change: ByteChange) -> bytes:
    at = len(data) * change.place // 1000
    match change.kind:
        case ByteKind.CUT:
            return data[:at]
        case ByteKind.FLIP:
            return data[:at] + bytes(byte ^ 0x15 for byte in data[at : at + 1]) + data[at + 1 :]
        case ByteKind.INSERT:
            return data[:at] + JUNK[change.junk] + data[at:]
        case ByteKind.DOUBLE:
            return data[:at] + data[at : at + 20] + data[at:]
        case ByteKind.DROP:
            return data[:at] + data[at + 5 :]
