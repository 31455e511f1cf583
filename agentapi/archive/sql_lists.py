"""Lists of turns, out of the table of turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from agentapi.archive.rows import AnyRow, escaped, readable
from agentapi.archive.tables import turns
from agentapi.archive.turns import TurnFilter

MAX_LOOKED_AT: Final = 10_000
"""Rows that one call looks at, where an index cannot answer all that is asked."""

_STATUSES: Final = frozenset({"completed", "cancelled"})
"""How turns end that are in the archive."""

_Conditions = Sequence[sa.ColumnElement[bool]]


class FoundRows(NamedTuple):
    """Rows of a list; the other fields are those of `FoundTurns`."""

    rows: Sequence[AnyRow]
    reached: int | None
    looked_at: int


def find_rows(
    connection: sa.Connection,
    columns: Sequence[sa.Column[Any]],
    wanted: TurnFilter,
    limit: int,
) -> FoundRows:
    """The rows of the newest turns that match, copies of a turn newest first; see `FoundTurns`."""
    indexed, others = _conditions(wanted)
    where = [*indexed, *_times(wanted)]
    newest = turns.c.created.desc()
    reached: int | None = None
    looked_at = 0
    if others:
        last = sa.select(turns.c.created).where(*where).order_by(newest).offset(MAX_LOOKED_AT)
        reached = connection.execute(last.limit(1)).scalar()
        if reached is not None:
            where.append(turns.c.created >= reached)
            looked_at = MAX_LOOKED_AT
    where += others
    some = sa.select(*columns).where(*where)
    some = some.order_by(newest, turns.c.turn_id.desc(), turns.c.version.desc())
    rows = list(connection.execute(some.limit(limit)))
    if len(rows) == limit:
        # A list is read down to a time, so the others of the last one belong to it.
        reached = rows[-1]._mapping[turns.c.created]
        rows = [row for row in rows if row._mapping[turns.c.created] != reached]
        rows += connection.execute(some.where(turns.c.created == reached))
    return FoundRows(rows, reached, max(looked_at, len(rows)))


def _times(wanted: TurnFilter) -> list[sa.ColumnElement[bool]]:
    times: list[sa.ColumnElement[bool]] = []
    if wanted.since is not None:
        times.append(turns.c.created >= wanted.since)
    if wanted.until is not None:
        times.append(turns.c.created <= wanted.until)
        if wanted.behind:
            times.append(sa.or_(turns.c.created < wanted.until, turns.c.turn_id < wanted.behind))
    return times


def _conditions(wanted: TurnFilter) -> tuple[_Conditions, _Conditions]:
    """Conditions that an index answers, newest turn first; and the others."""
    asked = [
        (column, value)
        for column, value in (
            # Each has an index with the time. The fewest turns probably have the first.
            (turns.c.conversation_id, _id(wanted.conversation_id)),
            (turns.c.user_id, _id(wanted.user_id)),
            (turns.c.tenant_id, _id(wanted.tenant_id)),
            (turns.c.agent, None if wanted.agent is None else readable(wanted.agent)),
        )
        if value is not None
    ]
    # Many turns may have no user.
    asked.sort(key=lambda pair: not pair[1])
    indexed = [column == value for column, value in asked[:1]]
    # Not columns but expressions: SQLite would choose between the indexes without knowing more.
    others = [column.op("||")("") == value for column, value in asked[1:]]
    if not wanted.statuses >= _STATUSES:
        others.append(turns.c.status.in_(sorted(wanted.statuses)))
    return indexed, others


def _id(value: str | None) -> str | None:
    return None if value is None else escaped(value)
