"""The workers' pool, as Celery drives it: how many turns at once, on how few threads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentapi import TurnStatus
from agentapi.broker.wire import TASK_NAME
from agentapi.turns import Turn
from orchestrator import Orchestrator, TurnRequest
from orchestrator.stack import Stack
from tests.faults import until
from tests.gate import Gate

CONCURRENCY = 40


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=1,
        concurrency=CONCURRENCY,
        queues=2,
        flower=False,
    ) as running:
        yield running


def test_turns_in_flight_are_bounded_and_hold_no_threads(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    asked = [TurnRequest(agent="tools", message=gate.message) for _ in range(100)]
    handles = orchestrator.enqueue_many(asked)
    worker = psutil.Process(stack.workers[0].pid)
    most_threads = 0
    turns: list[Turn] = []
    while not turns or not all(turn.status.ended for turn in turns):
        turns = [handle.info() for handle in handles]
        most_threads = max(most_threads, worker.num_threads())
        if sum(turn.steps > 0 for turn in turns) >= CONCURRENCY:
            gate.open()
    assert all(turn.status is TurnStatus.COMPLETED for turn in turns)
    assert all(turn.attempt == 1 for turn in turns)
    moments = [(turn.started_at, 1) for turn in turns] + [(turn.ended_at, -1) for turn in turns]
    at_once = list(accumulate(change for _, change in sorted(moments)))
    assert max(at_once) == CONCURRENCY
    assert most_threads < 20


def test_a_message_that_is_no_wake_up_fails_alone(orchestrator: Orchestrator, celery: Any) -> None:
    for args in ((), ("c", "t", "a", "b"), (1, 2, 3), ("c", "not-a-turn", "a")):
        celery.send_task(TASK_NAME, args, queue="agentapi.0")
    celery.send_task("nobody.knows", (), queue="agentapi.0")
    for _ in range(2 * CONCURRENCY):
        # None of them keeps a place.
        celery.send_task(TASK_NAME, ("x",), queue="agentapi.1")
    assert orchestrator.enqueue("tools", "hi").result(timeout=150).text == "You said: hi"
    until(lambda: list(celery.control.inspect(timeout=30, limit=1).active().values()) == [[]])

    def in_flight() -> int:
        [stats] = celery.control.inspect(timeout=30, limit=1).stats().values()
        return int(stats["pool"]["in-flight"])

    until(lambda: in_flight() == 0)


def test_other_tasks_run_too(celery: Any) -> None:
    sent = celery.send_task("celery.accumulate", (1, 2), queue="agentapi.0")

    def ended() -> bool:
        [found] = celery.control.inspect(timeout=30, limit=1).query_task(sent.id).values()
        [stats] = celery.control.inspect(timeout=30, limit=1).stats().values()
        return not found and stats["total"].get("celery.accumulate") == 1

    until(ended)
