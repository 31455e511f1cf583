"""Turns of a person who is forgotten, while the turns are in the archive or come back from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentapi import load_settings
from agentapi.archive.turns import ArchivedTurn
from agentapi.errors import ArchiveUnavailable, TurnNotFound
from agentapi.stores import RedisTurnStore
from agentapi.stores.data import Whose
from agentapi.stores.redis import turn_archiving
from agentapi.stores.redis.turn_archiving import RedisTurnArchiving
from orchestrator.data.forgetting import Forgetting, count_user
from tests.fakes.archive import MemoryArchive
from tests.integration.test_archived_turns import SHORT, World, world_of

WHOSE = Whose(user_id="ann")


@pytest.fixture
def world(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(turn_archiving, "REST", 0)
    made = world_of(load_settings(redis_url=redis_url, **SHORT), MemoryArchive())
    # The conversation is somebody else's.
    made.says("shared", user_id="bob")
    yield made
    made.store.close()


def test_one_that_comes_back_meanwhile_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_id = world.says("shared", user_id="ann")
    world.move(turn_id)
    owned = RedisTurnArchiving.owned

    def read_first(archived: RedisTurnArchiving, *args: Any) -> Iterator[ArchivedTurn]:
        # Redis was searched already, and somebody reads the turn now.
        world.store.turn(turn_id)
        yield from owned(archived, *args)

    monkeypatch.setattr(RedisTurnArchiving, "owned", read_first)
    assert count_user(world.store, WHOSE).turns == 1
    world.move(turn_id)
    assert Forgetting(world.store, WHOSE, world.store.cancel, 1).run().turns == 1
    with pytest.raises(TurnNotFound):
        world.store.turn(turn_id)


def test_one_that_is_back_is_counted_once(world: World) -> None:
    turn_id = world.says("shared", user_id="ann")
    world.move(turn_id)
    world.store.turn(turn_id)
    assert [turn.turn_id for turn in world.store.data.turns(WHOSE)] == [turn_id]
    assert Forgetting(world.store, WHOSE, world.store.cancel, 1).run().turns == 1


def test_a_process_without_archive_refuses(world: World) -> None:
    world.move(world.says("shared", user_id="ann"))
    other = RedisTurnStore(load_settings(redis_url=world.bench.settings.redis_url))
    with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
        count_user(other, WHOSE)
    with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
        Forgetting(other, WHOSE, other.cancel, 0).run()
    other.close()
