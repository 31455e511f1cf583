"""A turn that was claimed, and that the event loop cannot begin."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.fleet import Fleet
from workers.turns.claimed import ClaimedTurn
from workers.turns.decision import HandBack, TurnDecision


def test_a_turn_that_cannot_be_begun_is_handed_back(
    make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet()
    runtime = fleet.app.runtime
    turn = fleet.enqueue("napper", "hello")
    claimed = runtime.claim(turn.conversation_id, turn.turn_id, turn.agent)
    assert isinstance(claimed, ClaimedTurn)
    decisions: list[TurnDecision] = []
    heard = threading.Event()

    def then(decision: TurnDecision) -> None:
        decisions.append(decision)
        heard.set()

    def refuse(work: Any, **_: Any) -> None:
        raise MemoryError

    loop = runtime._loop.loop
    loop.call_soon_threadsafe(loop.set_exception_handler, lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "create_task", refuse)
        runtime.run(claimed, then)
        assert heard.wait(20)
    assert decisions == [HandBack()]
    assert runtime.close(claimed, HandBack())["status"] == "handed_back"
    assert runtime.running.all() == []
    assert fleet.execute(turn)["status"] == "completed"
