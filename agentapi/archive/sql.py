"""The archive in PostgreSQL or SQLite."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from typing_extensions import override

from agentapi.archive import schema
from agentapi.archive.engine import Database
from agentapi.archive.protocol import Archive, ArchiveCount, ArchivedConversation, ArchivedRow
from agentapi.archive.rows import (
    ROW,
    AnyRow,
    blob_values,
    conversation_of,
    conversation_values,
    escaped,
    message_values,
    row_of,
    summary_values,
)
from agentapi.archive.sql_turns import SqlTurns
from agentapi.archive.tables import TABLES, blobs, conversations, messages, summaries, turns

_PIECE: Final = 200
"""Maximum copies that one transaction deletes."""

_WITHOUT_TURNS: Final = "1.0"
"""Tables of the first release that had an archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveStatus:
    """The state of an archive, for operators.

    Attributes:
        address: Address of the database, without user and password.
        version: Version of its tables; None without tables.
        newest: The version that this release creates.
        conversations: Number of copies of conversations.
        messages: Number of messages in these copies.
        turns: Number of copies of turns.
        size: Bytes of tables and indexes.
    """

    address: str
    version: str | None
    newest: str
    conversations: int = 0
    messages: int = 0
    turns: int = 0
    size: int = 0


_creating: Final = threading.Lock()


def _create(path: str) -> None:
    """Create SQLite's file, before SQLite creates one that everybody can read.

    A file that exists must not be opened: the close takes away all locks that this process has on
    it. Another process would then delete the log of the last transactions (-wal) as nobody's.
    """
    with _creating, suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


class SqlArchive(SqlTurns, Archive):
    """An archive in a database. Safe to share between threads.

    Attributes:
        address: Address of the database, without user and password.
    """

    def __init__(self, url: str, *, database: Database | None = None) -> None:
        """Create the archive. It connects when first used.

        Args:
            url: URL of the database, such as ``postgresql://user@host/archive``.
            database: Connections to use instead of the URL's own.

        Raises:
            ConfigurationError: The URL is not valid.
        """
        self._database = database or Database(url)
        self.address = self._database.address

    @override
    def prepare(self) -> None:
        if self._database.on_sqlite:
            _create(self._database.address)
        schema.prepare(self._database)

    @override
    def put(self, conversation: ArchivedConversation) -> None:
        values = conversation_values(conversation)
        listed = message_values(conversation.messages, 0)
        self._database.run(lambda c: _put(c, conversation, values, listed), writes=True)

    @override
    def get(self, conversation_id: str, version: str) -> ArchivedConversation | None:
        return self._database.run(
            lambda c: _get(c, escaped(conversation_id), version), writes=False
        )

    @override
    def delete(self, conversation_id: str, version: str) -> bool:
        statement = sa.delete(conversations).where(_is(escaped(conversation_id), version))
        return self._database.run(lambda c: c.execute(statement).rowcount > 0, writes=True)

    @override
    def delete_of(
        self, *, user_id: str | None = None, tenant_id: str | None = None
    ) -> ArchiveCount:
        some = (
            sa.select(conversations.c.copy_id)
            .where(*_whose(user_id, tenant_id))
            .order_by(conversations.c.copy_id)
            .limit(_PIECE)
        )
        statement = (
            sa.delete(conversations)
            .where(conversations.c.copy_id.in_(some))
            .returning(conversations.c.messages)
        )
        copies = found = 0
        while deleted := self._rows(statement, writes=True):
            copies += len(deleted)
            found += sum(row.messages for row in deleted)
        return ArchiveCount(conversations=copies, messages=found)

    @override
    def count(self, *, user_id: str | None = None, tenant_id: str | None = None) -> ArchiveCount:
        total = sa.func.coalesce(sa.func.sum(conversations.c.messages), 0)
        statement = sa.select(sa.func.count(), total).where(*_whose(user_id, tenant_id))
        [(copies, found)] = self._rows(statement)
        return ArchiveCount(conversations=copies, messages=found)

    @override
    def page(
        self,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> Sequence[ArchivedRow]:
        order = (conversations.c.conversation_id, conversations.c.version)
        statement = sa.select(*ROW).where(*_whose(user_id, tenant_id))
        if after is not None:
            conversation_id, version = after
            place = (sa.literal(escaped(conversation_id)), sa.literal(version))
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*place))
        return [row_of(row) for row in self._rows(statement.order_by(*order).limit(limit))]

    @override
    def expired(
        self, now: int, *, after: tuple[int, str, str] | None = None, limit: int = 100
    ) -> Sequence[ArchivedRow]:
        expires = conversations.c.expires
        order = (expires, conversations.c.conversation_id, conversations.c.version)
        statement = sa.select(*ROW).where(expires <= now)
        if after is not None:
            moment, conversation_id, version = after
            place = (
                sa.literal(moment, expires.type),
                sa.literal(escaped(conversation_id)),
                sa.literal(version),
            )
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*place))
        return [row_of(row) for row in self._rows(statement.order_by(*order).limit(limit))]

    def status(self) -> ArchiveStatus:
        """The archive's state. It counts rows, which takes time if there are many.

        Raises:
            ArchiveUnavailable: The database cannot be used now.
        """
        return self._database.run(self._status, writes=False, bounded=False)

    def version(self) -> str | None:
        """The version of its tables; None without tables.

        Raises:
            ArchiveUnavailable: The database cannot be used now.
            ConfigurationError: They were written by a newer release, and this one cannot read them.
        """
        found = self._database.run(schema.current, writes=False)
        schema.check(found)
        return found

    @override
    def close(self) -> None:
        self._database.close()

    def _status(self, connection: sa.Connection) -> ArchiveStatus:
        if not self._database.on_sqlite:
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        address, found = self._database.address, schema.current(connection)
        if found is None or not schema.readable(found):
            return ArchiveStatus(address=address, version=found, newest=schema.newest())
        tables = TABLES[:-1] if found == _WITHOUT_TURNS else TABLES
        total = sa.func.coalesce(sa.func.sum(conversations.c.messages), 0)
        copies, listed = connection.execute(sa.select(sa.func.count(), total)).one()
        return ArchiveStatus(
            address=address,
            version=found,
            newest=schema.newest(),
            conversations=copies,
            messages=listed,
            turns=connection.execute(sa.select(sa.func.count()).select_from(turns)).scalar_one()
            if turns in tables
            else 0,
            size=_size(connection, tables),
        )

    def _rows(self, statement: sa.Executable, *, writes: bool = False) -> Sequence[AnyRow]:
        return self._database.run(lambda c: c.execute(statement).all(), writes=writes)


def _put(
    connection: sa.Connection,
    conversation: ArchivedConversation,
    values: dict[str, object],
    listed: list[dict[str, object]],
) -> None:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(conversations).values(values)
    # Waits for another process that is storing the same copy.
    added = connection.execute(
        statement.on_conflict_do_nothing().returning(conversations.c.copy_id)
    ).scalar()
    if added is None:
        return
    for row in listed:
        row["copy_id"] = added
    for table, rows in (
        (messages, listed),
        (summaries, summary_values(conversation, added)),
        (blobs, blob_values(conversation.blobs, added)),
    ):
        if rows:
            connection.execute(sa.insert(table), rows)


def _get(
    connection: sa.Connection, conversation_id: str, version: str
) -> ArchivedConversation | None:
    columns = (*ROW, conversations.c.copy_id, conversations.c.fields, summaries.c.text)
    joined = conversations.outerjoin(summaries)
    found = connection.execute(
        sa.select(*columns).select_from(joined).where(_is(conversation_id, version))
    ).one_or_none()
    if found is None:
        return None
    copy_id = found._mapping[conversations.c.copy_id]
    bodies = sa.select(messages.c.body, messages.c.raw).where(messages.c.copy_id == copy_id)
    listed = connection.execute(bodies.order_by(messages.c.position)).all()
    kept = sa.select(blobs.c.name, blobs.c.data).where(blobs.c.copy_id == copy_id)
    return conversation_of(
        found, found._mapping[summaries.c.text], listed, connection.execute(kept).all()
    )


def _size(connection: sa.Connection, tables: Sequence[sa.Table]) -> int:
    if connection.dialect.name == "sqlite":
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
    sizes = (sa.func.pg_total_relation_size(table.name) for table in tables)
    return int(sum(connection.execute(sa.select(*sizes)).one()))


def _is(conversation_id: str, version: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        conversations.c.conversation_id == conversation_id, conversations.c.version == version
    )


def _whose(user_id: str | None, tenant_id: str | None) -> list[sa.ColumnElement[bool]]:
    found = []
    if user_id is not None:
        found.append(conversations.c.user_id == escaped(user_id))
    if tenant_id is not None:
        found.append(conversations.c.tenant_id == escaped(tenant_id))
    return found
