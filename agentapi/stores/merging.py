"""Merges the lists of all partitions into one: newest first, page by page."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

import orjson

from agentapi.decoding.shown import shown
from agentapi.errors import InvalidInput
from agentapi.ids import PARTITIONS
from agentapi.stores.lists import MAX_PAGE, Paged

MAX_LOOKED_AT: Final = 10_000
"""Entries after which a page ends, however few of them match, so that it takes a fraction of a
second."""

FIRST_LOOK: Final = 16
LONGEST_LOOK: Final = 128
"""Maximum entries of a partition that one script examines. Redis is blocked meanwhile."""

T = TypeVar("T")


class Place(NamedTuple):
    """A position in a list.

    Attributes:
        time: Milliseconds; entries of this time or earlier follow.
        entry: Entries of exactly that time follow if they are smaller; "" to skip that time.
    """

    time: float
    entry: str


TOP: Final = Place(math.inf, "")
"""The position at the beginning of every list."""


class Match(NamedTuple, Generic[T]):
    """An entry that matches."""

    time: int
    entry: str
    item: T


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece(Generic[T]):
    """The part of a partition's list that was read.

    Attributes:
        matches: All matches between its beginning and `reached`.
        reached: Milliseconds; all entries of this time or later were examined. None at the end.
        looked_at: Number of entries that were examined.
    """

    matches: Sequence[Match[T]]
    reached: int | None
    looked_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A request to read some partitions' lists.

    Attributes:
        places: Where to begin in each partition.
        wanted: Number of matches of a partition after which to stop.
        most: Number of entries of a partition after which to stop.
    """

    places: Mapping[int, Place]
    wanted: int
    most: int


Read = Callable[[Look], Mapping[int, Piece[T]]]


@dataclass
class _Merge(Generic[T]):
    """The matches of all partitions, as far as they have been read."""

    places: dict[int, Place]
    found: list[Match[T]] = field(default_factory=list)
    looked_at: int = 0

    def add(self, pieces: Mapping[int, Piece[T]]) -> None:
        for partition, piece in pieces.items():
            self.found += piece.matches
            self.looked_at += piece.looked_at
            if piece.reached is None:
                del self.places[partition]
            else:
                self.places[partition] = Place(piece.reached, "")
        self.found.sort(key=lambda match: match[:2], reverse=True)

    @property
    def frontier(self) -> float:
        """All matches of this time or later are known."""
        return max((place.time for place in self.places.values()), default=-math.inf)

    def ready(self) -> list[Match[T]]:
        """The matches whose place in the merged list is certain."""
        frontier = self.frontier
        return [match for match in self.found if match.time >= frontier]

    def behind(self, limit: int) -> dict[int, Place]:
        """The partitions that may have entries before the last match of the page."""
        full = len(self.found) >= limit
        target = self.found[limit - 1].time if full else -math.inf
        return {p: place for p, place in self.places.items() if place.time > target}


def page_of(
    read: Read[T],
    limit: int,
    cursor: str | None,
    *,
    partitions: Sequence[int] = range(PARTITIONS),
    max_looked_at: int = MAX_LOOKED_AT,
) -> Paged[T]:
    """Read a page.

    Args:
        read: Reads pieces of several partitions' lists together.
        limit: Maximum entries of the page.
        cursor: Where the page begins; None for the first page.
        partitions: Partitions to look in.
        max_looked_at: Examined entries after which the page ends, however few match.

    Raises:
        InvalidInput: The limit or the cursor is not valid.
    """
    check_limit(limit)
    start = TOP if cursor is None else decoded(cursor)
    merge: _Merge[T] = _Merge(dict.fromkeys(partitions, start))
    # A little more than an even share of the page.
    wanted = 1 + math.ceil(2 * limit / len(partitions))
    for most in _growing():
        merge.add(read(Look(places=merge.behind(limit), wanted=wanted, most=most)))
        ready = merge.ready()
        if len(ready) >= limit or not merge.places or merge.looked_at >= max_looked_at:
            break
    page = ready[:limit]
    if len(ready) > limit or (len(ready) == limit and merge.places):
        after: Place | None = Place(page[-1].time, page[-1].entry)
    else:
        # Not the last examined entry: it may belong to another tenant.
        after = Place(merge.frontier, "") if merge.places else None
    return Paged(
        items=[match.item for match in page], cursor=None if after is None else encoded(after)
    )


def _growing() -> Iterator[int]:
    most = FIRST_LOOK
    while True:
        yield most
        most = min(2 * most, LONGEST_LOOK)


def check_limit(limit: int) -> None:
    """Check the length of a page.

    Raises:
        InvalidInput: It is not valid.
    """
    if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit is {shown(limit)}: expected a whole number from 1 to {MAX_PAGE}")


def encoded(place: Place) -> str:
    """A place as a cursor."""
    data = orjson.dumps([int(place.time), place.entry])
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(cursor: str) -> Place:
    """The place of a cursor.

    Raises:
        InvalidInput: It is not a cursor.
    """
    try:
        data = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        time, entry = orjson.loads(data)
        if not isinstance(time, int) or not isinstance(entry, str):
            raise TypeError
        return Place(time, entry)
    except (AttributeError, ValueError, TypeError, binascii.Error):
        raise InvalidInput(
            f"{shown(cursor)} is not a cursor: expected the cursor of the previous page"
        ) from None
