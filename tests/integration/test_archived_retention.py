"""How long turns in the archive are kept: as their copies say, whatever the reader's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agentapi import load_settings
from agentapi.errors import ArchiveLost, TurnNotFound
from agentapi.ids import partition_of
from agentapi.redis.keys import list_keys
from agentapi.stores import RedisTurnStore, TurnQuery
from agentapi.turns import TurnStatus
from tests.conformance.stores import C
from tests.fakes.archive import MemoryArchive
from tests.faults import until
from tests.integration.test_archived_turns import SHORT, World, at_once, quick, world_of

__all__ = ["at_once", "quick"]

DAY = 86_400_000
[MOVED] = list_keys(partition_of(C), ["moved:completed"])


@pytest.fixture
def hasty(quick: World) -> Iterator[RedisTurnStore]:
    """Another process, which keeps turns for a minute."""
    settings = load_settings(redis_url=quick.bench.settings.redis_url, turn_retention=60, **SHORT)
    store = RedisTurnStore(settings, archive=quick.archive)
    yield store
    store.close()


def days_ago(world: World, turn_id: str, days: int) -> None:
    """Let a turn in the archive have been accepted some days ago."""
    accepted: Any = world.store._client.zscore(MOVED, turn_id)
    world.store._client.zadd(MOVED, {turn_id: accepted - days * DAY})
    assert isinstance(world.archive, MemoryArchive)
    for key, copy in world.archive.turns.items():
        if copy.turn_id == turn_id:
            world.archive.turns[key] = replace(copy, created=copy.created - days * DAY)


def trimmed(world: World, store: RedisTurnStore) -> None:
    """Let a store accept turns until it has looked for old places in the list."""
    client, world.bench.store = world.store._client, store
    client.zadd(MOVED, {"old": 1})

    def done() -> bool:
        store.cancel(world.bench.enqueue())
        return client.zscore(MOVED, "old") is None

    until(done, what="a look at the list")


def test_a_producer_that_keeps_turns_for_less_keeps_theirs(
    quick: World, hasty: RedisTurnStore
) -> None:
    turn_id = quick.says()
    quick.move(turn_id)
    days_ago(quick, turn_id, 4)
    trimmed(quick, hasty)
    ended = TurnQuery(conversation_id=C, statuses=frozenset({TurnStatus.COMPLETED}))
    assert [turn.turn_id for turn in hasty.lists.turns(ended, 9).items] == [turn_id]
    assert hasty.turn(turn_id).text == "yo"


def test_a_turn_that_is_lost_is_lost_for_all(quick: World, hasty: RedisTurnStore) -> None:
    turn_id = quick.says()
    quick.move(turn_id)
    days_ago(quick, turn_id, 4)
    assert isinstance(quick.archive, MemoryArchive)
    rows = dict(quick.archive.turns)
    quick.archive.turns.clear()
    for store in (hasty, quick.store, hasty):
        with pytest.raises(ArchiveLost):
            store.turn(turn_id)
    # The operator restores a backup.
    quick.archive.turns.update(rows)
    assert hasty.turn(turn_id).text == "yo"


def test_a_place_without_a_copy_is_not_kept_for_ever(quick: World) -> None:
    turn_id = quick.says()
    quick.move(turn_id)
    days_ago(quick, turn_id, 9)
    trimmed(quick, quick.store)
    assert quick.store._client.zscore(MOVED, turn_id) is None


def test_a_turn_that_has_expired_is_gone_for_all(redis_url: str, quick: World) -> None:
    settings = load_settings(redis_url=redis_url, turn_retention=3, **SHORT)
    brief = world_of(settings, quick.archive)
    turn_id, other = brief.says(), quick.says()
    brief.move(turn_id, other)
    failures = ["delete_turns"]

    def dies(name: str) -> None:
        if name in failures:
            failures.remove(name)
            raise ConnectionError

    assert isinstance(quick.archive, MemoryArchive)
    quick.archive.before = dies

    def expired() -> bool:
        try:
            return quick.turns.expire() == 1
        except ConnectionError:
            # The place is gone, and the copy is not.
            assert quick.rows() == 2
            with pytest.raises(TurnNotFound):
                quick.store.turn(turn_id)
            return False

    until(expired, what="the end of its retention")
    assert failures == []
    for store in (quick.store, brief.store):
        with pytest.raises(TurnNotFound):
            store.turn(turn_id)
        listed = store.lists.turns(TurnQuery(agent="a"), 9).items
        assert [turn.turn_id for turn in listed] == [other]
    brief.store.close()


def test_a_later_turn_of_the_same_id_stays(quick: World) -> None:
    turn_id = quick.says()
    quick.move(turn_id)
    [copy] = quick.archive.turns_of([turn_id])
    before = (turn_id, copy.version - 1, copy.created - 1)
    assert quick.turns._unlist([before]) == [before[:2]]
    assert quick.away(turn_id)
    quick.turns._unlist([(turn_id, copy.version, copy.created)])
    assert quick.store._client.zscore(MOVED, turn_id) is None
