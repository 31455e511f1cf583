"""A turn that moves to the archive again while somebody is about to bring it back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from agentapi import load_settings
from agentapi.redis.archived import AwayTurn
from agentapi.stores import RedisTurnStore
from agentapi.stores.redis import turn_archiving
from agentapi.stores.redis.turn_archiving import REST, VALID
from tests.conformance.stores import C
from tests.fakes.archive import MemoryArchive
from tests.integration.test_archived_turns import SHORT, world_of


def test_one_that_was_stopped_undoes_no_change(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert VALID < REST
    monkeypatch.setattr(turn_archiving, "REST", 0)
    settings, archive = load_settings(redis_url=redis_url, **SHORT), MemoryArchive()
    world = world_of(settings, archive)
    turn_id = world.says()
    asked = round(world.store.turn(turn_id).created_at * 1000)
    world.move(turn_id)
    with closing(RedisTurnStore(settings, archive=archive)) as other:
        assert other.archiving is not None
        ask: Callable[..., Any] = other.archiving.ask

        def stopped(question: Any) -> Any:
            found = ask(question)
            # Hours later, when others have used the turn.
            assert world.store.conversations.relabel(C, turn_id, {"a": "b"}, "op")
            world.move(turn_id)
            return found

        monkeypatch.setattr(other.archiving, "ask", stopped)
        other.archiving.bring_back(AwayTurn(turn_id=turn_id, asked=asked - 3_600_000))
        assert world.away(turn_id)
    assert world.store.turn(turn_id).metadata == {"a": "b"}
    world.store.close()
