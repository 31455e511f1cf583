"""Turns that have ended, in PostgreSQL or SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from typing_extensions import override

from agentapi.archive.engine import Database
from agentapi.archive.rows import AnyRow, as_object, escaped, readable, unescaped
from agentapi.archive.sql_lists import find_rows
from agentapi.archive.tables import turns
from agentapi.archive.turns import ArchivedTurn, FoundTurns, TurnArchive, TurnFilter

_PIECE: Final = 500
"""Turns that one statement names: SQLite and PostgreSQL limit the number of parameters."""

_DELETED: Final = 1000
"""Maximum copies that one transaction deletes."""

_IDS: Final = ("conversation_id", "user_id", "tenant_id")
_SHOWN: Final = ("agent", "kind", "worker", "parent_id")
_WITHOUT_FIELDS: Final = tuple(column for column in turns.c if column.name != "fields")


class SqlTurns(TurnArchive):
    """The `TurnArchive` in a database."""

    _database: Database

    @override
    def put_turns(self, turns: Sequence[ArchivedTurn]) -> frozenset[tuple[str, int]]:
        values = [_values(turn) for turn in turns]
        return self._database.run(lambda c: _put(c, values), writes=True) if values else frozenset()

    @override
    def turns_of(self, turn_ids: Sequence[str], *, whole: bool = True) -> Sequence[ArchivedTurn]:
        columns = tuple(turns.c) if whole else _WITHOUT_FIELDS
        return [
            turn
            for piece in _pieces(turn_ids)
            for turn in self._newest(sa.select(*columns).where(turns.c.turn_id.in_(piece)))
        ]

    @override
    def find_turns(self, wanted: TurnFilter, limit: int) -> FoundTurns:
        found = self._database.run(
            lambda c: find_rows(c, _WITHOUT_FIELDS, wanted, limit), writes=False
        )
        newest: dict[str, ArchivedTurn] = {}
        for row in found.rows:
            newest.setdefault(row._mapping[turns.c.turn_id], _turn(row))
        return FoundTurns(
            turns=list(newest.values()), reached=found.reached, looked_at=found.looked_at
        )

    @override
    def turn_page(
        self,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        conversation_id: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> Sequence[ArchivedTurn]:
        some = (
            sa.select(turns.c.turn_id)
            .where(turns.c.turn_id > after, *_whose(user_id, tenant_id, conversation_id))
            .distinct()
            .order_by(turns.c.turn_id)
            .limit(limit)
        )
        return self._newest(sa.select(*_WITHOUT_FIELDS).where(turns.c.turn_id.in_(some)))

    @override
    def delete_turns(self, copies: Sequence[tuple[str, int]]) -> int:
        key = sa.tuple_(turns.c.turn_id, turns.c.version)
        statement = sa.delete(turns).where(key.in_(list(copies)))
        return self._database.run(lambda c: c.execute(statement).rowcount, writes=True)

    @override
    def delete_turns_of(self, *, user_id: str | None = None, tenant_id: str | None = None) -> int:
        deleted = 0
        while found := self._delete(_whose(user_id, tenant_id), _DELETED):
            deleted += found
        return deleted

    @override
    def expired_turns(self, now: int, limit: int = 500) -> Sequence[tuple[str, int, int]]:
        some = sa.select(turns.c.turn_id, turns.c.version, turns.c.created)
        some = some.where(turns.c.expires <= now).order_by(turns.c.expires).limit(limit)
        rows = self._database.run(lambda c: c.execute(some).all(), writes=False)
        return [(turn_id, version, created) for turn_id, version, created in rows]

    def _delete(self, where: Sequence[sa.ColumnElement[bool]], limit: int) -> int:
        key = (turns.c.turn_id, turns.c.version)
        some = sa.select(*key).where(*where).limit(limit)
        statement = sa.delete(turns).where(sa.tuple_(*key).in_(some))
        return self._database.run(lambda c: c.execute(statement).rowcount, writes=True)

    def _newest(self, statement: sa.Select[Any]) -> list[ArchivedTurn]:
        ordered = statement.order_by(turns.c.turn_id, turns.c.version)
        rows = self._database.run(lambda c: c.execute(ordered).all(), writes=False)
        newest = {row._mapping[turns.c.turn_id]: row for row in rows}
        return [_turn(row) for row in newest.values()]


def _put(connection: sa.Connection, values: list[dict[str, Any]]) -> frozenset[tuple[str, int]]:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(turns).on_conflict_do_nothing(), values)
    newest = sa.select(turns.c.turn_id, sa.func.max(turns.c.version)).group_by(turns.c.turn_id)
    stored = {
        (turn_id, version)
        for piece in _pieces([row["turn_id"] for row in values])
        for turn_id, version in connection.execute(newest.where(turns.c.turn_id.in_(piece)))
    }
    return frozenset((row["turn_id"], row["version"]) for row in values) & stored


def _values(turn: ArchivedTurn) -> dict[str, Any]:
    values = {column.name: getattr(turn, column.name) for column in turns.c}
    for name in _IDS:
        values[name] = escaped(values[name])
    for name in _SHOWN:
        values[name] = values[name] and readable(values[name])
    return values | {
        "metadata": as_object(turn.metadata),
        "fields": orjson.dumps(dict(turn.fields)).decode(),
    }


def _turn(row: AnyRow) -> ArchivedTurn:
    values = {column.name: value for column, value in _mapped(row)}
    for name in _IDS:
        values[name] = unescaped(values[name])
    return ArchivedTurn(**values | {"fields": orjson.loads(values.get("fields", "{}"))})


def _mapped(row: AnyRow) -> list[tuple[sa.Column[Any], Any]]:
    return [(column, row._mapping[column]) for column in turns.c if column in row._mapping]


def _pieces(turn_ids: Sequence[str]) -> list[Sequence[str]]:
    return [turn_ids[at : at + _PIECE] for at in range(0, len(turn_ids), _PIECE)]


def _whose(
    user_id: str | None, tenant_id: str | None, conversation_id: str | None = None
) -> list[sa.ColumnElement[bool]]:
    wanted = (
        (turns.c.user_id, user_id),
        (turns.c.tenant_id, tenant_id),
        (turns.c.conversation_id, conversation_id),
    )
    return [column == escaped(value) for column, value in wanted if value is not None]
