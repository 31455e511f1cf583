"""`agentapi archive`, the doctor's findings, and the queries of docs/guides/archive-sql.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agentapi import Settings
from agentapi.archive import schema
from agentapi.archive.engine import Database
from agentapi.archive.sql import SqlArchive
from orchestrator.cli.main import app
from orchestrator.doctor import _archive
from tests.conformance.test_archive import copy
from tests.conformance.test_archived_turns import turn
from tests.documents.blocks import blocks_of

Command = Callable[..., tuple[int, str, str]]

PAGE = "docs/guides/archive-sql.md"


@pytest.fixture
def command(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("AGENTAPI_ARCHIVE_URL", postgres_url)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentapi", "archive", *arguments])
        with pytest.raises(SystemExit) as ended:
            app()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def test_the_commands(command: Command, postgres_url: str) -> None:
    assert "none; run `agentapi archive migrate`" in command("status")[1]
    code, out, _ = command("migrate", "--json")
    assert (code, json.loads(out)) == (0, {"before": None, "version": schema.newest()})
    assert "already" in command("migrate")[2]
    with closing(SqlArchive(postgres_url)) as archive:
        archive.put(copy("c", messages=(b"{}",) * 3))
        archive.put_turns([turn(), turn()])
    code, out, err = command("status", "--json")
    found = json.loads(out)
    assert (code, found["conversations"], found["messages"], found["turns"]) == (0, 1, 3, 2)
    assert found["size"] > 0
    code, out, err = command("status")
    assert "1 copy" in out
    assert "pass-word" not in f"{found}{out}{err}"


def test_without_an_archive(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTAPI_ARCHIVE_URL")
    code, _, err = command("status")
    assert code != 0
    assert "AGENTAPI_ARCHIVE_URL is not set" in err


def codes(url: str | None) -> Sequence[tuple[str, str]]:
    return [(str(found.level), found.code) for found in _archive(Settings(archive_url=url))]


def test_what_the_doctor_finds(postgres_url: str, tmp_path: Path) -> None:
    assert codes(None) == []
    assert codes(postgres_url) == [("fail", "archive.unmigrated")]
    with closing(SqlArchive(postgres_url)) as archive:
        archive.prepare()
    assert codes(postgres_url) == [("ok", "archive.reachable")]
    assert codes(f"{postgres_url}_missing") == [("fail", "archive.unreachable")]
    with closing(Database(postgres_url)) as database:
        newer = sa.text("UPDATE archive_version SET version_num = '9.0'")
        database.run(lambda c: c.execute(newer), writes=True)
    assert codes(postgres_url) == [("fail", "archive.refused")]
    assert codes(f"sqlite:///{tmp_path / 'missing' / 'a.db'}") == [("fail", "archive.unreachable")]


def test_the_doctors_remedies(postgres_url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    at, name = postgres_url.rpartition("/")[0], postgres_url.rpartition("/")[2]
    for url, remedy in {
        f"sqlite:///{tmp_path / 'missing' / 'a.db'}": "Create the folder and let this user write",
        f"sqlite:///{broken}": "Restore the archive from a backup, or name another file",
        f"{at}/{name}_missing": "Create the object that the message names",
        "postgresql://agents@127.0.0.1:1/archive": "Start it, or correct AGENTAPI_ARCHIVE_URL.",
        "postgresql://agents@no.such.host.invalid/archive": "Correct the host name",
        "mysql://127.0.0.1/archive": "Correct AGENTAPI_ARCHIVE_URL.",
    }.items():
        [found] = _archive(Settings(archive_url=url))
        assert remedy in found.remedy, found
        assert "is it running" not in found.message or url.startswith("postgres")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_queries_of_the_page(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
    with closing(SqlArchive(url)) as archive:
        archive.prepare()
        said = (
            b'{"role":"user","content":"a late refund, 100%"}',
            b'{"role":"assistant","content":"no\\u0000"}',
            b'{"role":"tool","content":"a refund is late \\u0000","turn_id":"001-a"}',
        )
        # A leftover counts in no query that adds up.
        archive.put(copy("user:43", user="bob", tenant="acme", messages=(b"{",)))
        archive.put(copy("user:42", user="ann", tenant="acme", messages=said))
        archive.put(copy("user:43", user="bob", tenant="acme", messages=(b"{", said[0])))
        archive.put_turns([turn(tenant_id="acme", input_tokens=2, cost=0.5) for _ in range(3)])
    answers: list[list[tuple[Any, ...]]] = []
    with closing(Database(url)) as database:
        for block in blocks_of(PAGE):
            if block.language != "sql" or (block.title and kind == "sqlite"):
                continue
            for statement in filter(str.strip, block.code.split(";")):

                def run(connection: sa.Connection, text: str = statement) -> Any:
                    found = connection.execute(sa.text(text))
                    return [tuple(row) for row in found] if found.returns_rows else None

                if (rows := database.run(run, writes=True)) is not None:
                    answers.append(rows)
    tenants, refunds, costs, *searched = answers
    [(tenant, day, *spent)] = costs
    assert (tenant, str(day), *spent) == ("acme", "2027-01-15", "support", 3, 6, 1.5)
    assert [row[:3] for row in tenants] == [("acme", 2, 5)]
    expected = [
        ("user:42", 0, "user", "a late refund, 100%"),
        ("user:42", 2, "tool", "a refund is late \ufffd"),
    ]
    assert refunds == expected
    if kind == "postgres":
        assert sorted(row[:2] for row in searched[0]) == [
            ("user:42", 0),
            ("user:42", 2),
            ("user:43", 1),
        ]


def test_the_page_names_every_column_and_table() -> None:
    from agentapi.archive.tables import metadata

    page = Path(__file__).parents[2].joinpath(PAGE).read_text()
    for table in metadata.tables.values():
        assert f"`{table.name}`" in page
        for column in table.columns:
            assert f"`{column.name}`" in page, f"{table.name}.{column.name}"
