"""One suite for turns in the archive, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from agentapi.archive import sql_lists
from agentapi.archive.protocol import Archive
from agentapi.archive.sql import SqlArchive
from agentapi.archive.turns import ArchivedTurn, TurnFilter
from agentapi.ids import create_turn_id
from tests.conformance.test_archive import NOW, NUL, Run, run, url
from tests.fakes.archive import MemoryArchive

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
    assert len(archive.expired_turns(NOW + 2_000, limit=5)) == 5
    expired = archive.expired_turns(NOW + 9)
    assert sorted(expired) == sorted((each.turn_id, NOW, each.created) for each in turns[:10])
    assert archive.delete_turns([copy[:2] for copy in expired]) == 10
    assert archive.expired_turns(NOW + 9) == []
    assert archive.delete_turns_of(tenant_id="t1", user_id="ann") in range(590, 603)
    assert archive.delete_turns_of(user_id="ann") > 590
    assert [each.user_id for each in archive.turn_page()] == ["bob"]
    assert run("SELECT count(*) FROM archived_turns") == [(1,)]


ENDED = frozenset({"completed", "cancelled"})


def pages(archive: Archive, wanted: TurnFilter, limit: int) -> list[str]:
    """The ids of all turns that match, in their order."""
    found: list[str] = []
    while True:
        page = archive.find_turns(wanted, limit)
        found += [each.turn_id for each in page.turns]
        if page.reached is None:
            return found
        assert all(each.created >= page.reached for each in page.turns)
        wanted = replace(wanted, until=page.reached - 1, behind="")


def test_lists_are_filtered_and_in_order(archive: SqlArchive) -> None:
    memory = MemoryArchive()
    turns = [
        turn(
            version=NOW + number,
            # Two a millisecond.
            created=NOW - number // 2,
            conversation_id=f"c{number % 3}",
            user_id=("", "ann", f"a{NUL}b\ue0000")[number % 5 % 3],
            tenant_id=("", "acme")[number % 2],
            agent=("support", "sales")[number % 7 % 2],
            status=("completed", "cancelled")[number % 4 == 0],
        )
        for number in range(40)
    ]
    # Some have come back and moved again.
    turns += [replace(each, version=each.version + 99) for each in turns[::6]]
    for kept in (archive, memory):
        kept.put_turns(turns)
    for conversation, user, tenant, agent, statuses in product(
        (None, "c1"),
        (None, "", "ann", f"a{NUL}b\ue0000", "nobody"),
        (None, "", "acme"),
        (None, "sales"),
        (ENDED, frozenset({"cancelled"})),
    ):
        wanted = TurnFilter(
            conversation_id=conversation,
            user_id=user,
            tenant_id=tenant,
            agent=agent,
            statuses=statuses,
        )
        expected = pages(memory, wanted, 1000)
        assert pages(archive, wanted, 3) == pages(archive, wanted, 1000) == expected
    newest = pages(memory, TurnFilter(statuses=ENDED), 1000)
    assert len(newest) == 40
    some = TurnFilter(statuses=ENDED, since=NOW - 9, until=NOW - 5, behind=newest[10])
    assert [each.created for each in archive.find_turns(some, 99).turns][:2] == [NOW - 5, NOW - 6]
    assert pages(archive, some, 2) == newest[11:20]
    found = archive.find_turns(TurnFilter(statuses=ENDED, conversation_id="c0"), 3)
    assert [each.version for each in found.turns][:2] == [NOW + 99, NOW + 3]


def test_a_list_of_rare_turns_looks_at_some(
    archive: SqlArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_lists, "MAX_LOOKED_AT", 10)
    turns = [turn(tenant_id="acme", created=NOW - number) for number in range(35)]
    rare = replace(turns[24], agent="rare")
    archive.put_turns([*turns[:24], rare, *turns[25:]])
    wanted = TurnFilter(statuses=ENDED, tenant_id="acme", agent="rare")
    first = archive.find_turns(wanted, 5)
    assert (first.turns, first.reached, first.looked_at) == ([], NOW - 10, 10)
    assert pages(archive, wanted, 5) == [rare.turn_id]


def test_tables_of_the_release_before_are_migrated(archive: SqlArchive, run: Run) -> None:
    run("DROP TABLE archived_turns")
    run("UPDATE archive_version SET version_num = '1.0'")
    assert archive.status().turns == 0
    with closing(SqlArchive(archive._database._url.render_as_string(False))) as newer:
        newer.prepare()
        assert newer.put_turns([turn()])
        assert newer.status().turns == 1


def test_tables_without_the_indexes_of_lists_are_migrated(archive: SqlArchive, run: Run) -> None:
    put = turn(user_id="ann")
    archive.put_turns([put])
    for name in ("user_created", "agent"):
        run(f"DROP INDEX archived_turns_{name}")
    run("UPDATE archive_version SET version_num = '1.1'")
    with closing(SqlArchive(archive._database._url.render_as_string(False))) as newer:
        newer.prepare()
        assert newer.status().version == newer.status().newest
        assert pages(newer, TurnFilter(statuses=ENDED, user_id="ann"), 9) == [put.turn_id]
    for name in ("user_created", "agent"):
        run(f"DROP INDEX archived_turns_{name}")
