"""Lists with a filter, of turns that are in the archive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis

from agentapi import load_settings
from agentapi.errors import ArchiveUnavailable, StoreUnavailable
from agentapi.ids import create_turn_id, partition_of, partition_of_turn
from agentapi.redis.keys import turn_keys
from agentapi.stores import RedisTurnStore, TurnQuery
from agentapi.turns import TurnStatus
from tests.conformance.stores import C, beside
from tests.fakes.archive import MemoryArchive
from tests.integration.test_archived_turns import SHORT, World, at_once, quick, world, world_of

__all__ = ["at_once", "quick", "world"]


def listed(store: RedisTurnStore, limit: int = 50, **query: Any) -> list[str]:
    """The ids of all turns that match, page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = store.lists.turns(TurnQuery(**query), limit, cursor)
        assert len(page.items) <= limit
        found += [turn.turn_id for turn in page.items]
        if (cursor := page.cursor) is None:
            return found


def counted(part: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of scripts that a part of the store will call."""
    called: list[str] = []
    each = part._each

    def noted(name: str, *args: Any, **more: Any) -> Any:
        called.append(name)
        return each(name, *args, **more)

    monkeypatch.setattr(part, "_each", noted)
    return called


def test_turns_that_do_not_match_cost_nothing(
    quick: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [quick.says(user_id="ann") for _ in range(150)]
    few = [quick.says(beside(C), user_id="bob") for _ in range(3)]
    quick.move(*others, *few)
    lists = quick.store.lists
    asked: list[str] = []
    assert isinstance(quick.archive, MemoryArchive)
    quick.archive.before = asked.append
    assert lists._in_archive is not None
    called = counted(lists, monkeypatch)
    placed = counted(lists._in_archive, monkeypatch)
    queries: list[dict[str, Any]] = [{"conversation_id": beside(C)}, {"user_id": "bob"}]
    for query in queries:
        # Those of one millisecond are listed by their ids.
        assert sorted(listed(quick.store, **query)) == sorted(few)
        assert (called, asked, placed) == (["list"], ["find_turns"], ["placed"])
        for names in (called, asked, placed):
            names.clear()
    assert listed(quick.store, user_id="nobody") == []
    assert (called, asked, placed) == (["list"], ["find_turns"], [])


def test_every_page_has_what_is_here_and_what_is_not(world: World) -> None:
    turn_ids = [world.says((C, beside(C), "c2")[n % 3], user_id="ann") for n in range(24)]
    world.bench.enqueue(user_id="ann")
    every = world.store.lists.turns(TurnQuery(), 99).items
    ids = [turn.turn_id for turn in every]
    world.move(*turn_ids)
    for turn_id in turn_ids[::4]:
        world.store.turn(turn_id)
    ended = frozenset({TurnStatus.COMPLETED})
    middle = every[9].created_at
    for limit in (1, 2, 5, 24, 25, 26):
        assert listed(world.store, limit, user_id="ann") == ids
        assert listed(world.store, limit, user_id="ann", statuses=ended) == ids[1:]
        in_c = [turn.turn_id for turn in every if turn.conversation_id == C]
        assert listed(world.store, limit, conversation_id=C) == in_c
        late = [turn.turn_id for turn in every if turn.created_at >= middle]
        assert listed(world.store, limit, agent="a", since=middle) == late
        early = [turn.turn_id for turn in every if turn.created_at <= middle]
        assert listed(world.store, limit, agent="a", until=middle) == early


def test_a_list_without_such_turns_needs_no_archive(quick: World) -> None:
    turn_id = quick.says(user_id="ann")
    quick.move(turn_id)
    [turn] = quick.store.lists.turns(TurnQuery(), 9).items
    later = quick.says(user_id="ann")

    def away(name: str) -> None:
        raise ArchiveUnavailable("away")

    assert isinstance(quick.archive, MemoryArchive)
    quick.archive.before = away
    since = turn.created_at + 0.001
    assert listed(quick.store, user_id="ann", since=since) == [later]
    assert listed(quick.store, conversation_id=C, since=since) == [later]
    elsewhere = next(name for name in map(str, range(9)) if partition_of(name) != partition_of(C))
    assert listed(quick.store, conversation_id=elsewhere) == []
    assert listed(quick.store, user_id="ann", error_code="poison") == []
    with pytest.raises(ArchiveUnavailable):
        listed(quick.store, user_id="ann")


def test_copies_without_a_place_mean_nothing(quick: World) -> None:
    gone, kept, lost = (quick.says(user_id="ann") for _ in range(3))
    quick.move(gone, kept, lost)
    assert quick.store.conversations.forget(C, gone, "op") is not None
    quick.store.turn(lost)
    quick.store._client.delete(turn_keys(lost).turn)
    assert quick.rows() == 3
    for limit in (1, 9):
        assert listed(quick.store, limit, user_id="ann") == [kept]
        assert listed(quick.store, limit, conversation_id=C) == [kept]


def test_a_later_turn_of_the_same_id_is_listed_once(world: World) -> None:
    turn_id, other = create_turn_id(C, "key"), world.says(user_id="ann")
    world.says(turn_id=turn_id, user_id="ann")
    world.move(turn_id, other)
    assert world.store.conversations.forget(C, turn_id, "op") is not None
    # Its copy is deleted later.
    world.says(turn_id=turn_id, user_id="bob")
    for where in ("in Redis", "in the archive"):
        for limit in (1, 9):
            assert listed(world.store, limit, user_id="ann") == [other], where
            assert listed(world.store, limit, user_id="bob") == [turn_id], where
            assert listed(world.store, limit, conversation_id=C) == [turn_id, other], where
        world.move(turn_id)


def test_shards_may_go_away_before_places_are_looked_up(
    cluster_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = MemoryArchive()
    settings = load_settings(redis_url=cluster_url, broker_url="memory://", **SHORT)
    made = world_of(settings, archive)
    turn_ids = [made.says(f"user:{number}", user_id="ann") for number in range(6)]
    made.move(*turn_ids)
    each, gone = made.store.lists._scripts.call_each, {"placed", "unlist_turns"}

    def away(name: str, *args: Any, **more: Any) -> list[Any]:
        if name in gone:
            raise redis.ConnectionError
        return each(name, *args, **more)

    monkeypatch.setattr(made.store.lists._scripts, "call_each", away)
    page = made.store.lists.turns(TurnQuery(user_id="ann"), 9, partial=True)
    assert page.items == []
    assert page.missing is not None
    assert page.missing.partitions == len({partition_of_turn(turn_id) for turn_id in turn_ids})
    with pytest.raises(StoreUnavailable, match="incomplete"):
        listed(made.store, user_id="ann")
    archive.turns = {key: replace(copy, expires=1) for key, copy in archive.turns.items()}
    assert made.turns.expire() == 0
    gone.clear()
    assert sorted(listed(made.store, user_id="ann")) == sorted(turn_ids)
    assert made.turns.expire() == 6
    assert listed(made.store, user_id="ann") == []
    made.store.close()


def test_lists_of_a_cluster_have_them(cluster_url: str) -> None:
    settings = load_settings(redis_url=cluster_url, broker_url="memory://", **SHORT)
    made = world_of(settings, MemoryArchive())
    turn_ids = [made.says(f"user:{number}", user_id=f"u{number % 2}") for number in range(12)]
    made.move(*turn_ids)
    assert sorted(listed(made.store, 4, user_id="u1")) == sorted(turn_ids[1::2])
    assert listed(made.store, 4, conversation_id="user:3") == [turn_ids[3]]
    made.store.close()


@pytest.mark.parametrize("when", ["before the archive is read", "after it was read"])
def test_turns_that_come_back_meanwhile_are_listed(quick: World, when: str) -> None:
    turn_ids = [quick.says() for _ in range(3)]
    quick.move(*turn_ids)
    assert isinstance(quick.archive, MemoryArchive)
    archive: Any = quick.archive
    find, came_back = archive.find_turns, []

    def meanwhile(*args: Any) -> Any:
        first = find(*args)
        for turn_id in turn_ids:
            came_back.append(quick.store.turn(turn_id).turn_id)
        return find(*args) if when.startswith("before") else first

    archive.find_turns = meanwhile
    assert sorted(listed(quick.store, conversation_id=C)) == sorted(turn_ids)
    assert came_back == turn_ids


def test_turns_that_move_meanwhile_are_listed_once(quick: World) -> None:
    turn_ids = [quick.says() for _ in range(4)]
    quick.move(turn_ids[0])
    for turn_id in turn_ids:
        quick.store.turn(turn_id)
    quick.move(turn_ids[1])
    archive: Any = quick.archive
    find = archive.find_turns

    def meanwhile(*args: Any) -> Any:
        quick.move(*turn_ids)
        return find(*args)

    archive.find_turns = meanwhile
    assert sorted(listed(quick.store, conversation_id=C)) == sorted(turn_ids)
    assert all(map(quick.away, turn_ids))
