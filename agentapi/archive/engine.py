"""Connections to the archive's database, and the translation of its errors."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agentapi.errors import AgentAPIError, ArchiveUnavailable, ConfigurationError, StoreFault

T = TypeVar("T")

_EXPECTED: Final = "expected a URL such as postgresql://user@host/archive or sqlite:////var/lib/agentapi/archive.db"
_CONNECTIONS: Final = 8
"""Connections of one process, and so the number of threads that can use the archive at the same
time."""

_CONNECT: Final = 3
_STATEMENT: Final = 5.0
"""Time limit for a statement, in seconds."""

_SILENCE: Final = 8.0
"""Seconds after which a read is abandoned if the server does not enforce the time limit. Turns wait
for it."""

_PATIENCE: Final = 60.0
"""The same for a transaction that writes: a long conversation takes many statements."""

_WRITES: Final = "agentapi_writes"


class Database:
    """A pool of connections to PostgreSQL, or an SQLite file. It connects when first used."""

    def __init__(
        self,
        url: str,
        *,
        statement: float = _STATEMENT,
        silence: float = _SILENCE,
        patience: float = _PATIENCE,
    ) -> None:
        """Prepare it.

        Args:
            url: URL of the database; see AGENTAPI_ARCHIVE_URL.
            statement: Time limit for a statement, in seconds.
            silence: Seconds without a response after which a read is abandoned.
            patience: The same for a transaction that writes.

        Raises:
            ConfigurationError: The URL is not valid.
        """
        self._url = _parsed(url)
        self._longest = {False: silence, True: patience}
        self.on_sqlite = self._url.get_backend_name() == "sqlite"
        if self.on_sqlite:
            self.address = str(self._url.database)
            self._engine = _sqlite(self._url)
        else:
            host = f"{self._url.host or 'localhost'}:{self._url.port or 5432}"
            self.address = f"{host}/{self._url.database or ''}"
            self._engine = _postgres(self._url, statement)

    def run(self, work: Callable[[sa.Connection], T], *, writes: bool, bounded: bool = True) -> T:
        """Run `work` in one transaction, and again if the connection turns out to be dead.

        Args:
            work: The work; it may run twice.
            writes: Whether it changes anything.
            bounded: Whether to abandon a server that does not respond.

        Raises:
            ArchiveUnavailable: The database cannot be used now.
            StoreFault: The database refuses the statement itself.
        """
        try:
            try:
                return self._once(work, writes, bounded)
            except DBAPIError as error:
                if not error.connection_invalidated or isinstance(error.orig, _GaveUp):
                    raise
            # The server was restarted, and the pool has dropped its other connections too.
            return self._once(work, writes, bounded)
        except SQLAlchemyError as error:
            # Not `from error`: a database error quotes values, which may be users' text.
            raise self._translated(error) from None

    def _once(self, work: Callable[[sa.Connection], T], writes: bool, bounded: bool) -> T:
        options = {_WRITES: writes}
        with self._engine.connect() as connection:
            configured = connection.execution_options(**options)
            with self._deadline(configured, bounded and self._longest[writes]), configured.begin():
                return work(configured)

    @contextmanager
    def _deadline(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """Close the connection of a server that does not respond in time; psycopg would wait."""
        if self.on_sqlite or not seconds:
            yield
            return
        driver: Any = connection.connection.driver_connection
        cut = threading.Event()

        def give_up() -> None:
            cut.set()
            with suppress(OSError), socket.socket(fileno=os.dup(driver.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except DBAPIError as error:
            if cut.is_set():
                error.orig = _GaveUp()
            raise
        finally:
            timer.cancel()

    def _translated(self, error: SQLAlchemyError) -> AgentAPIError:
        if isinstance(error, PoolTimeout):
            return ArchiveUnavailable(
                f"the archive at {self.address} is busy: all {_CONNECTIONS} connections of this "
                "process are in use"
            )
        cause = error.orig if isinstance(error, DBAPIError) else None
        state = str(getattr(cause, "sqlstate", None) or "")
        if state in _NOT_PREPARED or _begins(cause, "no such table"):
            return ArchiveUnavailable(
                f"the archive at {self.address} has no tables: run `agentapi archive migrate`"
            )
        if state in _LOGIN:
            return ArchiveUnavailable(
                f"the archive at {self.address} refuses the user or password, or the user lacks "
                "permissions: correct AGENTAPI_ARCHIVE_URL"
            )
        if isinstance(cause, _GaveUp) or state == _CANCELLED:
            return ArchiveUnavailable(f"the archive at {self.address} does not answer in time")
        if self.on_sqlite and _begins(cause, _DAMAGED):
            return StoreFault(
                f"the archive at {self.address} is damaged, or is not an SQLite database: restore "
                "a backup, or correct AGENTAPI_ARCHIVE_URL"
            )
        if self.on_sqlite and _passes(error, state):
            return ArchiveUnavailable(
                f"the archive at {self.address} cannot be used: {_why(cause, state)}; can this "
                "user write there, and is AGENTAPI_ARCHIVE_URL correct?"
            )
        if _passes(error, state):
            return ArchiveUnavailable(
                f"the archive at {self.address} is out of reach: {_why(cause, state)}; is it "
                "running, and is AGENTAPI_ARCHIVE_URL correct?"
            )
        named = f"{type(cause or error).__name__}{f', SQLSTATE {state}' if state else ''}"
        return StoreFault(
            f"the archive at {self.address} refuses a statement ({named}); repeating it does not "
            "help"
        )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class _GaveUp(Exception):
    """The server did not respond in time."""


_NOT_PREPARED: Final = frozenset({"42P01", "3F000"})
_LOGIN: Final = frozenset({"28000", "28P01", "42501"})
_CANCELLED: Final = "57014"
_PASSING: Final = ("08", "25006", "40", "53", "55", "57", "58")
"""SQLSTATEs, or their classes, of transient errors: a lost connection, a standby, a deadlock, no
memory or disk space, a lock that is held, a server that shuts down, a system error."""


def _passes(error: SQLAlchemyError, state: str) -> bool:
    if state:
        return state.startswith(_PASSING)
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated
        or isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))
    )


def _why(cause: object, state: str) -> str:
    """The reason in a few words, without quoting data."""
    if state:
        return f"SQLSTATE {state}"
    if isinstance(cause, sqlite3.Error):
        return str(cause)
    said = str(cause).strip().splitlines()
    # libpq names the address and the system's reason.
    return said[-1][-200:] if said else "the connection was lost"


_DAMAGED: Final = ("file is not a database", "database disk image is malformed")


def _begins(cause: object, text: str | tuple[str, ...]) -> bool:
    return isinstance(cause, sqlite3.Error) and str(cause).startswith(text)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(f"AGENTAPI_ARCHIVE_URL is not a URL: {_EXPECTED}") from None
    except ValueError as error:
        raise ConfigurationError(
            f"AGENTAPI_ARCHIVE_URL is not valid: {error}; {_EXPECTED}"
        ) from None
    match parsed.drivername:
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite" | "sqlite+pysqlite":
            if parsed.database in (None, "", ":memory:"):
                raise ConfigurationError(
                    "AGENTAPI_ARCHIVE_URL names no file: conversations in memory would be lost; "
                    f"{_EXPECTED}"
                )
            return parsed
    raise ConfigurationError(
        f"AGENTAPI_ARCHIVE_URL begins with {parsed.drivername}://: {_EXPECTED}"
    )


_POOL: Final[dict[str, Any]] = {
    "pool_size": _CONNECTIONS,
    "max_overflow": 0,
    "pool_timeout": 5,
    # Errors must not quote parameters, which contain users' text.
    "hide_parameters": True,
}


def _postgres(url: URL, statement: float) -> sa.Engine:
    engine = sa.create_engine(
        url,
        **_POOL,
        pool_use_lifo=True,
        pool_recycle=3_600,
        connect_args={
            "connect_timeout": _CONNECT,
            # Prepared statements are lost behind PgBouncer.
            "prepare_threshold": None,
            "application_name": "agentapi",
            "keepalives_idle": 30,
        },
    )

    @sa.event.listens_for(engine, "connect")
    def bound(connection: Any, record: Any) -> None:
        milliseconds = int(statement * 1000)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {milliseconds}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {6 * milliseconds}")
        connection.autocommit = False

    return engine


def _sqlite(url: URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        **_POOL,
        connect_args={"timeout": 5, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # The driver starts no transactions itself, so that tables are also created in a
        # transaction.
        connection.isolation_level = None
        for pragma in ("foreign_keys=ON", "journal_mode=WAL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and then writes would fail if another writer is active.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
