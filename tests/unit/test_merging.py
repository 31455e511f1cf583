"""Pages merged from many partitions, over small lists and small looks; and positions in ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentapi.errors import InvalidInput
from agentapi.stores.merging import Look, Match, Piece, decoded, page_of
from agentapi.stores.redis.positions import Position

PARTITIONS = range(4)


@dataclass
class Lists:
    """Lists of some partitions, each entry with its time; reads them as list.lua does."""

    entries: dict[tuple[int, str], bool] = field(default_factory=dict)
    """Whether each (time, entry) matches. An entry begins with its partition."""

    def add(self, time: int, partition: int, name: int, matches: bool) -> None:
        entry = f"{partition}-{name:03d}"
        # A list has each entry once.
        if not any(known == entry for _, known in self.entries):
            self.entries[time, entry] = matches

    def read(self, look: Look) -> Mapping[int, Piece[str]]:
        return {
            partition: self._piece(partition, place.time, place.entry, look)
            for partition, place in look.places.items()
        }

    def _piece(self, partition: int, time: float, behind: str, look: Look) -> Piece[str]:
        mine = sorted(e for e in self.entries if e[1].startswith(f"{partition}-"))[::-1]
        left = [e for e in mine if e[0] < time or (e[0] == time and e[1] < behind)]
        matches: list[Match[str]] = []
        reached: int | None = None
        looked = 0
        for at, entry in left:
            full = looked >= look.most or len(matches) >= look.wanted
            if reached is not None and at < reached and full:
                return Piece(matches=matches, reached=reached, looked_at=looked)
            reached, looked = at, looked + 1
            if self.entries[at, entry]:
                matches.append(Match(at, entry, entry))
        return Piece(matches=matches, reached=None, looked_at=looked)


ENTRIES = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(PARTITIONS), st.integers(0, 40), st.booleans()),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ENTRIES, ENTRIES, st.integers(1, 7), st.integers(1, 10))
def test_what_exists_all_the_while_is_found_once(
    before: list[tuple[int, int, int, bool]],
    later: list[tuple[int, int, int, bool]],
    limit: int,
    budget: int,
) -> None:
    """Whatever is added between two pages, and however little a page may look at."""
    lists = Lists()
    for entry in before:
        lists.add(*entry)
    wanted = {entry for (_, entry), matches in lists.entries.items() if matches}
    seen: list[tuple[int, str]] = []
    cursor: str | None = None
    added = iter(later)
    for _ in range(500):
        page = page_of(lists.read, limit, cursor, partitions=PARTITIONS, max_looked_at=budget)
        found = {entry: time for time, entry in lists.entries}
        seen += [(found[entry], entry) for entry in page.items]
        assert len(page.items) <= limit
        cursor = page.cursor
        if cursor is None:
            break
        for new in islice(added, 1):
            lists.add(*new)
    assert cursor is None, "every page gets further"
    assert seen == sorted(seen, reverse=True)
    assert wanted <= {entry for _, entry in seen}
    assert len(seen) == len(set(seen))


def test_a_cursor_never_names_what_was_not_shown() -> None:
    """It may be another tenant's."""
    lists = Lists()
    for number in range(400):
        lists.add(number, number % 4, number, matches=number == 399)
    page = page_of(lists.read, 5, None, partitions=PARTITIONS, max_looked_at=4)
    assert page.items == ["3-399"]
    assert page.cursor is not None
    assert decoded(page.cursor).entry == ""


def test_a_page_reads_little_of_long_lists() -> None:
    lists = Lists()
    for number in range(1000):
        lists.add(number, number % 4, number, matches=True)
    reads = 0

    def read(look: Look) -> Mapping[int, Piece[str]]:
        nonlocal reads
        reads += 1
        return lists.read(look)

    page = page_of(read, 10, None, partitions=PARTITIONS)
    assert len(page.items) == 10
    assert reads <= 2


@given(
    st.lists(st.tuples(st.integers(0, 2**45), st.integers(0, 2**20)), min_size=256, max_size=256)
)
@settings(max_examples=20, deadline=None)
def test_a_position_survives_as_text(entries: list[tuple[int, int]]) -> None:
    text = str(Position(entries))
    assert Position.read(text).streams() == [f"{ms}-{number}" for ms, number in entries]
    moved = Position.read(text)
    moved.move(7, (2**45, 3))
    assert str(Position.read(str(moved))) == str(moved) != text
    assert len(text) < 3500


@pytest.mark.parametrize("text", ["", "AQ", "AQAA", "Ag", "not base64!", "/" * 4000])
def test_a_text_that_is_no_position(text: str) -> None:
    with pytest.raises(InvalidInput, match="position"):
        Position.read(text)
