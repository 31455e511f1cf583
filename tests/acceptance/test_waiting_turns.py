"""Turns that wait for people and for other turns, when workers and servers die meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import TurnStatus
from agentapi.errors import TurnFailed
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.acceptance.test_cli import agentapi
from tests.faults import kill, redis_down, until, worker_of
from tests.gate import Gate

AGENTS = ("tests.acceptance.agents",)

CONCURRENCY = 5
"""Turns at once in one worker: too few for the children of one turn."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path, agents=AGENTS, workers=2, flower=False, concurrency=CONCURRENCY, heartbeat=0.5,
        dispatch_grace=1, shutdown_grace=1,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running


def fan_out(
    orchestrator: Orchestrator, *messages: str, deadline: float | None = None
) -> TurnHandle:
    text = f"/fan_out {json.dumps({'messages': messages})}"
    return orchestrator.enqueue("tools", text, deadline=deadline)


def children_run(turn: TurnHandle, count: int) -> list[TurnHandle]:
    until(lambda: sum(c.status() is TurnStatus.RUNNING for c in started(turn)) == count)
    return turn.children()


def started(turn: TurnHandle) -> list[TurnHandle]:
    return turn.children() if turn.status() is TurnStatus.PARKED else []


def test_an_approval_outlives_everything_but_redis(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    turn = orchestrator.enqueue("tools", '/sign {"paper": "a"}\n/sign {"paper": "b"}')
    until(lambda: len(turn.pending()) == 2)
    for worker in list(stack.workers):
        kill(stack, worker, machine=True)
    with redis_down(stack):
        pass
    first, second = (call.call_id for call in turn.pending())
    turn.approve(first, by="ann")
    assert turn.status() is TurnStatus.PARKED
    stack.start_worker()
    until(lambda: [call.call_id for call in turn.pending()] == [second])
    listed = agentapi("pending", turn.turn_id, redis_url=stack.redis_url)
    assert second in listed.stdout
    assert '{"paper": "b"}' in listed.stdout
    done = agentapi("reject", turn.turn_id, second, "--reason", "no ink", redis_url=stack.redis_url)
    assert done.stdout == "rejected\n"
    result = turn.result(timeout=150)
    told = [message.content for message in result.messages if message.role == "tool"]
    assert told == ["signed a", "This call was not allowed: no ink"]
    again = agentapi("approve", turn.turn_id, second, redis_url=stack.redis_url)
    assert again.returncode == 7
    assert again.stderr.startswith("CallNotPending")


def test_a_command_that_waits_says_that_its_turn_needs_approval(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    command = subprocess.Popen(
        [*(sys.executable, "-m", "orchestrator.cli.main", "enqueue", "tools"),
         *('/sign {"paper": "a"}', "--wait")],
        env={**os.environ, "AGENTAPI_REDIS_URL": stack.redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert command.stderr is not None
        # On a busy machine it says first that no worker has taken the turn yet.
        assert "(calls sign)\n" in iter(command.stderr.readline, "")
        assert command.stderr.readline() == 'tools wants to call sign({"paper": "a"})\n'
        said, _, turn_id = command.stderr.readline().strip().rpartition(" ")
        assert said == "waits for approval: agentapi pending"
        turn = orchestrator.turn(turn_id)
        turn.approve(turn.pending()[0].call_id)
        reply, _ = command.communicate(timeout=150)
    finally:
        command.kill()
    assert command.returncode == 0
    assert "signed a" in reply


def test_children_run_beside_each_other_on_all_workers_and_outlive_one(
    stack: Stack, orchestrator: Orchestrator, gate: Gate
) -> None:
    turn = fan_out(orchestrator, *[gate.message] * 8)
    children = children_run(turn, 8)
    workers = {str(child.info().worker) for child in children}
    assert len(workers) == 2
    kill(stack, worker_of(stack, workers.pop()))
    gate.open()
    result = turn.result(timeout=150)
    replies = json.loads(next(m.content for m in result.messages if m.role == "tool"))
    assert len(replies) == 8
    assert all("released" in reply for reply in replies)
    assert turn.info().parks == 1
    # Nobody else has heard of them: each is a conversation of its own.
    assert len(orchestrator.history(turn.conversation_id)) == 4


def test_the_worker_of_the_parent_dies_while_its_children_run(
    stack: Stack, orchestrator: Orchestrator, gate: Gate
) -> None:
    turn = fan_out(orchestrator, gate.message, '/count_up {"seconds": 0}')
    children_run(turn, 1)
    for worker in list(stack.workers):
        stack.start_worker()
        kill(stack, worker)
    gate.open()
    assert "released" in turn.result(timeout=150).text


def test_a_cancelled_turn_takes_its_tree_with_it(orchestrator: Orchestrator) -> None:
    inner = json.dumps({"messages": ['/nap {"seconds": 600}']})
    turn = fan_out(orchestrator, f"/fan_out {inner}", '/nap {"seconds": 600}')
    children_run(turn, 1)
    parent = next(c for c in turn.children() if "fan_out" in c.info().input)
    until(lambda: len(started(parent)) == 1)
    tree = [*turn.children(), *parent.children()]
    assert len(tree) == 3
    turn.cancel()
    until(lambda: all(t.status() is TurnStatus.CANCELLED for t in tree), 150, "the cancellation")


def test_a_deadline_reaches_the_tree(orchestrator: Orchestrator) -> None:
    turn = fan_out(orchestrator, '/nap {"seconds": 600}', deadline=12)
    [child] = children_run(turn, 1)
    with pytest.raises(TurnFailed, match="deadline"):
        turn.result(timeout=150)
    until(lambda: child.status().ended, 150, "the child's end")
    assert child.status() is not TurnStatus.COMPLETED


def test_a_rolling_restart_while_turns_wait(stack: Stack, orchestrator: Orchestrator) -> None:
    turns = [fan_out(orchestrator, *['/count_up {"seconds": 1}'] * 3) for _ in range(4)]
    for worker in list(stack.workers):
        stack.start_worker()
        worker.stop()
        stack.workers.remove(worker)
    for turn in turns:
        assert turn.result(timeout=150).text.count("counted") == 3


def test_one_thread_is_enough_for_a_tree(tmp_path: Path) -> None:
    with Stack(
        tmp_path, agents=AGENTS, workers=1, flower=False, concurrency=1, dispatch_grace=1
    ) as stack, Orchestrator(stack.settings) as orchestrator:  # fmt: skip
        inner = json.dumps({"messages": ['/echo {"text": "deep"}'] * 2})
        turn = fan_out(orchestrator, f"/fan_out {inner}", f"/fan_out {inner}")
        assert turn.result(timeout=150).text.count("deep") >= 4
