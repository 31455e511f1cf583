"""One suite for the archive in SQLite and in PostgreSQL."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.autogenerate
import alembic.runtime.migration
import pytest
import sqlalchemy as sa

from agentapi.archive import schema, sql
from agentapi.archive.engine import Database
from agentapi.archive.protocol import ArchiveCount, ArchivedConversation, ArchivedRow
from agentapi.archive.sql import SqlArchive
from agentapi.archive.tables import metadata
from agentapi.errors import ArchiveUnavailable, ConfigurationError, StoreFault
from tools.postgres import Postgres

NOW = 1_800_000_000_123

Run = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'archive.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def archive(url: str) -> Iterator[SqlArchive]:
    with closing(SqlArchive(url)) as made:
        made.prepare()
        yield made


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    """Runs a statement, and returns its rows."""
    with closing(Database(url)) as database:

        def statement(text: str, **values: Any) -> Any:
            def work(connection: sa.Connection) -> Any:
                found = connection.execute(sa.text(text), values)
                return found.all() if found.returns_rows else None

            return database.run(work, writes=True)

        yield statement


def copy(
    conversation_id: str,
    *,
    version: str | None = None,
    user: str = "",
    tenant: str = "",
    expires: int | None = None,
    messages: Sequence[bytes] = (b'{"role":"user","content":"hello"}',),
    fields: Mapping[str, str] | None = None,
    blobs: Mapping[str, bytes] | None = None,
) -> ArchivedConversation:
    return ArchivedConversation(
        row=ArchivedRow(
            conversation_id=conversation_id,
            version=version or uuid.uuid4().hex,
            user_id=user,
            tenant_id=tenant,
            generation=3,
            epoch=2**40,
            created=NOW - 10_000,
            updated=NOW - 1,
            archived=NOW,
            expires=expires,
            messages=len(messages),
        ),
        fields=fields or {},
        messages=messages,
        blobs=blobs or {},
    )


NUL = chr(0)
ODD = (
    b'{ "role":"user",  "content":"spaces, \xc3\xbc, \\u00fc, \\ud83d\\ude00" }',
    b'{"role":"user","content":"a\\u0000b","x":{"\\u0000":[1,1.50,"\\\\u0000"]}}',
    b'{"role":"user","content":"twice","content":"the same"}',
    b'{"role":"user","content":9007199254740993123456789}',
    b'["no object"]',
    b"no JSON, and no UTF-8: \xff\x00",
    b"",
)


def test_what_is_put_comes_back_byte_for_byte(archive: SqlArchive) -> None:
    data = bytes(range(256)) * 300
    put = copy(
        f"user:42/{chr(0x1F600)}",
        user=f"a{NUL}b\ue0000",
        tenant="\ue000",
        expires=2**60,
        messages=ODD,
        fields={
            "summary": "They met.",
            "covered": "2",
            "metadata": '{"title": "a\\u0000"}',
            "agent": f"x{NUL}",
            "turns": "not a number",
            "active:support": "sales",
        },
        blobs={hashlib.sha256(data).hexdigest(): data, "empty": b""},
    )
    archive.put(put)
    got = archive.get(put.row.conversation_id, put.row.version)
    assert got is not None
    assert (got.fields, got.messages, got.blobs) == (put.fields, put.messages, put.blobs)
    # The time is one that no database can express: it becomes one that never comes.
    assert got.row.expires is not None
    assert got.row.expires > NOW * 100
    assert archive.page(user_id=f"a{NUL}b\ue0000", tenant_id="\ue000") == [got.row]
    assert archive.count(user_id="a\ue0000b\ue0000") == ArchiveCount(conversations=0, messages=0)


def test_a_summary_with_nul_comes_back(archive: SqlArchive) -> None:
    put = copy("c", fields={"summary": f"a{NUL}b", "covered": "1"}, messages=())
    archive.put(put)
    assert archive.get("c", put.row.version) == put


def test_versions_are_copies_of_their_own(archive: SqlArchive) -> None:
    first, second = copy("c"), copy("c", messages=())
    archive.put(first)
    archive.put(second)
    archive.put(first)
    assert archive.get("c", first.row.version) == first
    assert archive.delete("c", first.row.version)
    assert not archive.delete("c", first.row.version)
    assert archive.get("c", first.row.version) is None
    assert archive.get("c", second.row.version) == second
    assert archive.get("another", second.row.version) is None


def test_nothing_of_a_deleted_copy_is_left(archive: SqlArchive, run: Run) -> None:
    put = copy("c", fields={"summary": "s", "covered": "1"}, blobs={"name": b"data"})
    archive.put(put)
    archive.delete("c", put.row.version)
    for table in metadata.tables:
        assert run(f"SELECT count(*) FROM {table}") == [(0,)]


def test_pages_go_through_all_in_order(archive: SqlArchive) -> None:
    names = ["a", "B", "\U0001f600", "ä", "z", "\ufffd", "a b"]
    rows = [copy(name, tenant="t", expires=NOW + at // 2) for at, name in enumerate(names)]
    for put in rows:
        archive.put(put)
    archive.put(copy("of another", tenant="other"))
    expected = sorted((put.row for put in rows), key=lambda row: (row.conversation_id, row.version))

    pages: list[ArchivedRow] = []
    while found := archive.page(
        tenant_id="t",
        after=(pages[-1].conversation_id, pages[-1].version) if pages else None,
        limit=3,
    ):
        pages.extend(found)
    assert pages == expected

    due: list[ArchivedRow] = []
    while found := archive.expired(
        NOW + 2,
        after=(due[-1].expires or 0, due[-1].conversation_id, due[-1].version) if due else None,
        limit=2,
    ):
        due.extend(found)
    assert due == sorted(
        (row for row in expected if (row.expires or 0) <= NOW + 2),
        key=lambda row: (row.expires, row.conversation_id, row.version),
    )


def test_what_somebody_has_is_deleted(archive: SqlArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentapi.archive.sql._PIECE", 2)
    for at in range(5):
        archive.put(copy(f"c{at}", user="u", tenant="t", messages=(b"{}",) * at))
    archive.put(copy("of another tenant", user="u", tenant="other"))
    archive.put(copy("of nobody"))
    assert archive.count(user_id="", tenant_id="") == ArchiveCount(conversations=1, messages=1)
    found = ArchiveCount(conversations=5, messages=10)
    assert archive.count(user_id="u", tenant_id="t") == found
    assert archive.delete_of(user_id="u", tenant_id="t") == found
    assert archive.delete_of(user_id="u", tenant_id="t") == ArchiveCount(
        conversations=0, messages=0
    )
    assert archive.delete_of(tenant_id="other").conversations == 1
    assert [row.conversation_id for row in archive.page()] == ["of nobody"]


def test_one_of_many_puts_of_a_copy_is_stored(archive: SqlArchive, run: Run) -> None:
    put = copy("c", messages=(b"{}",) * 50)
    start = threading.Barrier(6)

    def store(number: int) -> None:
        start.wait()
        archive.put(put)
        archive.put(copy(f"own-{number}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(store, range(6)))
    assert archive.get("c", put.row.version) == put
    assert run("SELECT count(*) FROM archived_messages") == [(50 + 6,)]


def test_a_put_that_fails_leaves_nothing(archive: SqlArchive, run: Run) -> None:
    bad = copy("c", messages=(b"secret words",), blobs={"name": b"bytes"})
    run("DROP TABLE archived_blobs")
    with pytest.raises((StoreFault, ArchiveUnavailable)) as caught:
        archive.put(bad)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert archive.page() == []
    assert run("SELECT count(*) FROM archived_messages") == [(0,)]


def test_several_processes_prepare_at_the_same_time(url: str) -> None:
    start = threading.Barrier(4)

    def prepare(_: int) -> None:
        with closing(SqlArchive(url)) as one:
            start.wait()
            one.prepare()
            one.prepare()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prepare, range(4)))
    with closing(SqlArchive(url)) as archive:
        assert archive.status().version == schema.newest()


PREPARE = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from agentapi.archive.sql import SqlArchive
archive = SqlArchive(sys.argv[1])
archive.prepare()
archive.close()
"""


def test_alembic_logs_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, url], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert [line.split(":")[1] for line in lines] == ["agentapi.archive.schema"]


def test_the_tables_are_those_that_the_code_uses(archive: SqlArchive, url: str) -> None:
    with closing(Database(url)) as database:

        def differences(connection: sa.Connection) -> Any:
            context = alembic.runtime.migration.MigrationContext.configure(
                connection, opts={"version_table": "archive_version"}
            )
            return alembic.autogenerate.compare_metadata(context, metadata)

        assert database.run(differences, writes=False) == []


def test_a_newer_schema_is_refused_if_it_must_be(archive: SqlArchive, run: Run) -> None:
    run("UPDATE archive_version SET version_num = '1.9'")
    archive.prepare()
    archive.put(copy("c"))
    run("UPDATE archive_version SET version_num = '2.0'")
    with pytest.raises(ConfigurationError, match=r"version 2\.0.*upgrade"):
        archive.prepare()
    assert archive.status().version == "2.0"


def test_status(archive: SqlArchive, url: str) -> None:
    archive.put(copy("c", messages=(b"{}",) * 3))
    status = archive.status()
    assert (status.version, status.conversations, status.messages) == (status.newest, 1, 3)
    assert status.size > 8_000
    assert "pass-word" not in repr(status)


def test_without_tables_an_archive_says_what_to_do(url: str) -> None:
    with closing(SqlArchive(url)) as archive:
        with pytest.raises(ArchiveUnavailable, match="agentapi archive migrate"):
            archive.put(copy("c"))
        assert archive.status().version is None


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "archive.db"
    with closing(SqlArchive(f"sqlite:///{file}")) as archive:
        archive.prepare()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_second_archive_of_a_process_costs_no_copy(tmp_path: Path) -> None:
    file = tmp_path / "archive.db"
    count = (
        "import sqlite3, sys; [found] = sqlite3.connect(sys.argv[1]).execute("
        "'SELECT count(*) FROM archived_conversations'); print(*found)"
    )

    def counted() -> bytes:
        """What another process finds; it is the last that closes the file, for all it can see."""
        return subprocess.check_output([sys.executable, "-c", count, file], timeout=60).strip()

    url = f"sqlite:///{file}"
    with closing(SqlArchive(url)) as one, closing(SqlArchive(url)) as other:
        one.prepare()
        one.put(copy("first"))
        other.prepare()
        assert counted() == b"1"
        one.put(copy("second"))
        assert counted() == b"2"


@pytest.mark.parametrize(
    "bad", ["nonsense", "mysql://u:pass-word@h/db", "sqlite://", "postgresql://u:pass-word@h:x/db"]
)
def test_a_url_that_is_not_valid(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a URL") as caught:
        SqlArchive(bad)
    assert "pass-word" not in str(caught.value)


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with (
        closing(SqlArchive(f"sqlite:///{tmp_path / 'missing' / 'archive.db'}")) as archive,
        pytest.raises(ArchiveUnavailable, match="unable to open"),
    ):
        archive.prepare()
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    with (
        closing(SqlArchive(f"sqlite:///{broken}")) as archive,
        pytest.raises((ArchiveUnavailable, StoreFault)),
    ):
        archive.prepare()


class TestServer:
    """What only a server can do."""

    def test_a_killed_connection_leaves_nothing_and_is_replaced(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (
            closing(SqlArchive(postgres_url)) as archive,
            closing(SqlArchive(postgres_url)) as other,
        ):
            archive.prepare()
            put = copy("c")
            killed: list[int] = []

            store = sql._put

            def store_and_die(connection: sa.Connection, *arguments: Any) -> None:
                store(connection, *arguments)
                if not killed:
                    killed.append(connection.execute(sa.func.pg_backend_pid()).scalar_one())
                    end = sa.func.pg_terminate_backend(killed[0])
                    other._database.run(lambda c: c.execute(end), writes=True)
                    assert other.page() == []

            monkeypatch.setattr(sql, "_put", store_and_die)
            archive.put(put)
            assert killed
            assert archive.get("c", put.row.version) == put
            assert other.count().conversations == 1

    def test_a_restarted_server(self, postgres_url: str, postgres_server: Postgres) -> None:
        with closing(SqlArchive(postgres_url)) as archive:
            archive.prepare()
            first, second = copy("first"), copy("second")
            archive.put(first)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: archive.count(), range(8)))
            postgres_server.stop(signal.SIGQUIT)
            try:
                with pytest.raises(ArchiveUnavailable, match="out of reach") as caught:
                    archive.put(second)
                assert "pass-word" not in str(caught.value)
            finally:
                postgres_server.start()
            archive.put(second)
            assert [row.conversation_id for row in archive.page()] == ["first", "second"]

    def test_a_server_that_says_nothing(self, postgres_url: str) -> None:
        with closing(SqlArchive(postgres_url)) as archive:
            archive.prepare()
        database = Database(postgres_url, patience=0.3)
        with closing(SqlArchive(postgres_url, database=database)) as archive:
            [(pid,)] = database.run(
                lambda c: c.execute(sa.select(sa.func.pg_backend_pid())).all(), writes=False
            )
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(ArchiveUnavailable, match="in time"):
                    archive.put(copy("c"))
            finally:
                os.kill(pid, signal.SIGCONT)
            # Another connection takes its time on a busy machine.
            database._longest[True] = 60.0
            archive.put(copy("c"))

    def test_a_statement_that_takes_too_long(self, postgres_url: str) -> None:
        with (
            closing(Database(postgres_url, statement=0.05)) as database,
            pytest.raises(ArchiveUnavailable, match="in time"),
        ):
            database.run(lambda c: c.execute(sa.select(sa.func.pg_sleep(60))), writes=False)

    def test_a_refused_login_shows_no_password(
        self, postgres_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        wrong = postgres_url.replace("pass-word", "wrong-word")
        with (
            closing(SqlArchive(wrong)) as archive,
            pytest.raises(ArchiveUnavailable, match="password") as caught,
        ):
            archive.prepare()
        assert "wrong-word" not in f"{caught.value!r}{caplog.text}"

    def test_a_user_who_may_not_make_tables(self, postgres_url: str) -> None:
        with closing(SqlArchive(postgres_url)) as owner:
            owner.prepare()
        with closing(Database(postgres_url)) as database:
            for text in (
                "DROP ROLE IF EXISTS agents",
                "CREATE ROLE agents LOGIN PASSWORD 'other-word'",
                "GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA public TO agents",
            ):
                database.run(lambda c, t=text: c.execute(sa.text(t)), writes=True)  # type: ignore[misc]
            worker = postgres_url.replace("archive:pass-word", "agents:other-word")
            with closing(SqlArchive(worker)) as archive:
                archive.prepare()
                archive.put(copy("c"))
                assert archive.delete_of().conversations == 1
            database.run(
                lambda c: c.execute(sa.text("DROP OWNED BY agents; DROP ROLE agents")), writes=True
            )
