"""A turn's timeline as bars, each with its start and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.gateway.console.entries import turn_address
from orchestrator.timeline import Timeline
from orchestrator.timeline_rows import Row, rows_of

WIDTH: Final = 1000
"""Width of the picture, in units."""

_THINNEST: Final = 6
"""Minimum width of a bar, in units."""

MOST_ROWS: Final = 400
"""Maximum rows on a page; the newest are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A row of the picture.

    Attributes:
        after: Seconds from the turn's acceptance to its beginning.
        took: Duration in seconds; None for an instant.
        lasting: Whether it has not ended.
        x: Start of its bar.
        width: Width of its bar. Both are in units of `WIDTH`.
        address: The page of the child turn.
    """

    row: Row
    after: float
    took: float | None
    lasting: bool
    x: int
    width: int
    address: str | None = None


def bars_of(timeline: Timeline) -> Sequence[Bar]:
    """The rows of a timeline with their bars, in the order in which they began."""
    return [_bar(row, timeline) for row in rows_of(timeline)[-MOST_ROWS:]]


def _bar(row: Row, timeline: Timeline) -> Bar:
    whole = max(timeline.until - timeline.created_at, 0.001)
    ended = timeline.until if row.ended_at is None else row.ended_at
    after = max(0.0, row.started_at - timeline.created_at)
    moment = row.ended_at == row.started_at
    x = min(WIDTH - _THINNEST, round(after / whole * WIDTH))
    width = min(WIDTH - x, max(_THINNEST, round((ended - row.started_at) / whole * WIDTH)))
    return Bar(
        row=row,
        after=after,
        took=None if moment else max(0.0, ended - row.started_at),
        lasting=row.ended_at is None and timeline.ended_at is None,
        x=x,
        width=width,
        address=turn_address(row.turn_id) if row.turn_id else None,
    )
