"""A turn that was claimed, and that the event loop cannot begin."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.fleet import Fleet
from workers.turns.claimed import ClaimedTurn, Outcome


def test_a_turn_that_cannot_be_begun_is_handed_back(
    make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet()
    runtime = fleet.app.runtime
    turn = fleet.enqueue("napper", "hello")
    claimed = runtime.begin(turn.conversation_id, turn.turn_id, turn.agent)
    assert isinstance(claimed, ClaimedTurn)
    outcomes: list[Outcome] = []
    heard = threading.Event()

    def then(outcome: Outcome) -> None:
        outcomes.append(outcome)
        heard.set()

    def refuse(work: Any, **_: Any) -> None:
        raise MemoryError

    loop = runtime._loop.loop
    loop.call_soon_threadsafe(loop.set_exception_handler, lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "create_task", refuse)
        runtime.carry_out(claimed, then)
        assert heard.wait(20)
    assert outcomes == [None]
    assert runtime.end(claimed, None)["status"] == "handed_back"
    assert runtime.running.all() == []
    assert fleet.execute(turn)["status"] == "completed"
