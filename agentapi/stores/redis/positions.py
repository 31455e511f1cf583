"""Positions in the ends of turns: the last seen entry of each partition's stream."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from agentapi.decoding.shown import shown
from agentapi.errors import InvalidInput
from agentapi.ids import PARTITIONS

EntryId: TypeAlias = tuple[int, int]
"""Milliseconds, and the number within that millisecond."""

_VERSION: Final = b"\x01"


class Position:
    """A reader's position. Reading changes it, but its text stays valid."""

    def __init__(self, entries: Sequence[EntryId]) -> None:
        self._entries = list(entries)
        self._parts = [_packed(entry) for entry in self._entries]

    @classmethod
    def at(cls, milliseconds: int) -> Position:
        """The position before everything that happened at this time or later."""
        return cls([(milliseconds, 0)] * PARTITIONS)

    @classmethod
    def read(cls, text: str) -> Position:
        """A position from its text.

        Raises:
            InvalidInput: It is not a position.
        """
        try:
            data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
            if data[:1] != _VERSION:
                raise ValueError
            numbers = list(_numbers(data[1:]))
            if len(numbers) != 2 * PARTITIONS:
                raise ValueError
        except (AttributeError, ValueError, binascii.Error):
            raise InvalidInput(
                f"{shown(text)} is not a position: expected TurnEnd.position, 'start', or a time "
                "in seconds since 1970"
            ) from None
        return cls(list(zip(numbers[::2], numbers[1::2], strict=True)))

    def move(self, partition: int, entry: EntryId) -> None:
        """Move to the position after an entry of a partition."""
        self._entries[partition] = entry
        self._parts[partition] = _packed(entry)

    def streams(self) -> list[str]:
        """For each partition the id of the last entry seen."""
        return [f"{milliseconds}-{number}" for milliseconds, number in self._entries]

    def __str__(self) -> str:
        packed = _VERSION + b"".join(self._parts)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _packed(entry: EntryId) -> bytes:
    return b"".join(map(_varint, entry))


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise ValueError
        if not byte & 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError
