"""One suite for turns in the archive, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from agentapi.archive.sql import SqlArchive
from agentapi.archive.turns import ArchivedTurn
from agentapi.ids import create_turn_id
from tests.conformance.test_archive import NOW, NUL, Run, run, url

__all__ = ["run", "url"]


@pytest.fixture
def archive(url: str) -> Iterator[SqlArchive]:
    with closing(SqlArchive(url)) as made:
        made.prepare()
        yield made


def turn(version: int = NOW, **more: Any) -> ArchivedTurn:
    given: dict[str, Any] = {
        "turn_id": create_turn_id("c"),
        "conversation_id": "c",
        "agent": "support",
        "created": NOW - 9_000,
        "started": NOW - 8_000,
        "ended": NOW - 7_001,
        "archived": NOW,
        "expires": NOW + 1_000,
        "fields": {"status": "completed", "input": "hi"},
    }
    return ArchivedTurn(version=version, **given | more)


def test_what_is_put_comes_back(archive: SqlArchive) -> None:
    put = turn(
        conversation_id="user:42/\U0001f600",
        user_id=f"a{NUL}b\ue0000",
        tenant_id="\ue000",
        started=None,
        worker="w",
        parent_id="p",
        cancel_requested=True,
        attempt=3,
        steps=4,
        input_tokens=2**40,
        cost=0.25,
        metadata='{"a":1.5}',
        fields={"messages": '[{"content":"a\\u0000"}]', "input": f"ä{NUL}", "part:1": "{}"},
    )
    assert archive.put_turns([put]) == {(put.turn_id, NOW)}
    assert archive.turns_of([put.turn_id]) == [put]
    [light] = archive.turns_of([put.turn_id], whole=False)
    assert (light.fields, light.cost, light.started) == ({}, 0.25, None)
    assert archive.turn_page(user_id=put.user_id, tenant_id="\ue000") == [light]
    assert archive.turn_page(user_id="a") == []


def test_the_newest_copy_is_the_turn(archive: SqlArchive) -> None:
    first = turn(NOW, fields={"n": "1"})
    second = turn(NOW + 1, turn_id=first.turn_id, fields={"n": "2"})
    other = turn()
    assert len(archive.put_turns([second, other])) == 2
    # A mover that was slow stores its copy afterwards: it must not delete the record for it.
    assert archive.put_turns([first]) == frozenset()
    assert archive.put_turns([second]) == {(second.turn_id, NOW + 1)}
    assert archive.turns_of([first.turn_id]) == [second]
    assert len(archive.turn_page()) == 2
    assert archive.delete_turns([(first.turn_id, NOW), (other.turn_id, NOW + 9)]) == 1
    assert archive.turns_of([first.turn_id]) == [second]
    assert archive.delete_turns([(second.turn_id, NOW + 1)]) == 1
    assert archive.turns_of([first.turn_id, "none"]) == []


def test_pages_and_deletions(archive: SqlArchive, run: Run) -> None:
    turns = [turn(user_id="ann", tenant_id=f"t{n % 2}", expires=NOW + n) for n in range(1_203)]
    archive.put_turns(turns)
    archive.put_turns([turn(user_id="bob")])
    found: list[str] = []
    while page := archive.turn_page(user_id="ann", after=found[-1] if found else "", limit=500):
        found += [each.turn_id for each in page]
    assert found == sorted(each.turn_id for each in turns)
    assert len(archive.turns_of(found)) == 1_203
    assert archive.status().turns == 1_204
    assert archive.expire_turns(NOW + 9) == 10
    assert archive.expire_turns(NOW + 2_000, limit=5) == 5
    assert archive.delete_turns_of(tenant_id="t1", user_id="ann") in range(590, 603)
    assert archive.delete_turns_of(user_id="ann") > 590
    assert [each.user_id for each in archive.turn_page()] == ["bob"]
    assert run("SELECT count(*) FROM archived_turns") == [(1,)]


def test_tables_of_the_release_before_are_migrated(archive: SqlArchive, run: Run) -> None:
    run("DROP TABLE archived_turns")
    run("UPDATE archive_version SET version_num = '1.0'")
    assert archive.status().turns == 0
    with closing(SqlArchive(archive._database._url.render_as_string(False))) as newer:
        newer.prepare()
        assert newer.put_turns([turn()])
        assert newer.status().turns == 1
