"""Clients that act on turns that run: they call tools, steer, and cancel; workers die meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import TurnStatus
from agentapi.errors import TurnCancelled
from agentapi.turns import ClientTool
from orchestrator import CancelOutcome, Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.faults import kill, redis_down, until, worker_of
from tests.gate import Gate

HEARTBEAT = 40.0

PAINT = ClientTool(
    name="paint",
    description="Paint a wall.",
    parameters={"type": "object", "properties": {"colour": {"type": "string"}}},
)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path,
        agents=("tests.acceptance.agents",),
        workers=1,
        flower=False,
        lease_ttl=120,
        # Long, so that what is quicker was pushed.
        heartbeat=HEARTBEAT,
        dispatch_grace=1,
        shutdown_grace=1,
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running


def test_a_client_tool_waits_while_every_worker_dies(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    turn = orchestrator.enqueue(
        "tools", '/paint {"colour": "red"}\n/echo {"text": "own"}', client_tools=[PAINT]
    )
    until(lambda: len(turn.pending()) == 1)
    for worker in list(stack.workers):
        kill(stack, worker, machine=True)
    with redis_down(stack):
        pass
    [call] = turn.pending()
    assert (call.tool, call.arguments, call.kind) == ("paint", {"colour": "red"}, "client")
    assert turn.status() is TurnStatus.PARKED
    turn.answer(call.call_id, "painted")
    stack.start_worker()
    result = turn.result(timeout=150)
    assert result.text == "paint: painted\necho: own"
    assert [m.content for m in result.messages if m.role == "tool"] == ["painted", "own"]
    assert turn.cancel() is CancelOutcome.ENDED


def test_messages_steer_a_turn_once_although_its_worker_dies(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")

    def say(text: str) -> TurnHandle:
        return orchestrator.enqueue("tools", text, conversation_id="s", on_busy="steer")

    turn = say(first.message)
    until(lambda: any(event.type == "step" for event in _events(orchestrator, turn)))
    steers = [say("to the left"), say(second.message)]
    behind = orchestrator.enqueue("tools", "afterwards", conversation_id="s")
    assert [steer.status() for steer in steers] == [TurnStatus.QUEUED] * 2
    stack.start_worker()
    kill(stack, worker_of(stack, str(turn.info().worker)))
    first.open()
    # The second model call has been made, with both.
    until(lambda: turn.info().steps >= 5)
    kill(stack, worker_of(stack, str(turn.info().worker)))
    stack.start_worker()
    second.open()
    result = turn.result(timeout=150)
    assert [message.role for message in result.messages] == [
        *("user", "assistant", "tool", "user", "user", "assistant", "tool", "assistant")
    ]
    joined = [message.content for message in result.messages if message.role == "user"]
    assert joined == [first.message, "to the left", second.message]
    for steer in steers:
        assert steer.result(timeout=150) == result
        assert [event.type for event in steer.events()] == ["joined"]
    assert behind.result(timeout=150).text == "You said: afterwards"
    assert len(orchestrator.history("s")) == 10


def _events(orchestrator: Orchestrator, turn: TurnHandle) -> list:  # type: ignore[type-arg]
    return orchestrator.store.events({turn.turn_id: -1}, 0).get(turn.turn_id, [])


def test_cancellations_are_pushed_to_a_loaded_worker(orchestrator: Orchestrator) -> None:
    naps = [orchestrator.enqueue("tools", '/nap {"seconds": 600}') for _ in range(40)]
    until(lambda: all(nap.status() is TurnStatus.RUNNING for nap in naps))
    took = []
    for nap in naps[:20]:
        began = time.monotonic()
        assert nap.cancel() is CancelOutcome.REQUESTED
        with pytest.raises(TurnCancelled):
            nap.result(timeout=150)
        took.append(time.monotonic() - began)
    # At the heartbeat the median would be half of it, on any machine.
    assert statistics.median(took) < HEARTBEAT / 8, took
    # Also when a new message takes a turn's place.
    one = orchestrator.enqueue("tools", '/nap {"seconds": 600}', conversation_id="r")
    until(lambda: one.status() is TurnStatus.RUNNING)
    began = time.monotonic()
    other = orchestrator.enqueue("tools", "hello", conversation_id="r", on_busy="replace")
    assert other.result(timeout=150).text == "You said: hello"
    assert time.monotonic() - began < HEARTBEAT / 4
    for nap in naps[20:]:
        nap.cancel()
