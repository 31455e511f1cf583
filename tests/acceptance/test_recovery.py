"""Workers that die, pause, stop and come back, and how long their turns wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import TurnStatus
from agentapi.ids import create_turn_id
from agentapi.redis.keys import ELECTION_KEY, SHARES_KEY
from agentapi.stores.groups import SWEEP_GROUPS
from agentapi.turns import NewTurn
from orchestrator import CancelOutcome, Orchestrator, TurnHandle
from orchestrator.stack import Child, Stack
from tests.faults import assert_all_came_true, kill, paused, until, watchdogs, worker_of
from tests.gate import Gate

LEASE = 5.0
"""Seconds; on a busy machine a worker may be silent for some."""

GRACE = 60
"""Seconds that turns may run on after the first signal."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=2,
        flower=False,
        lease_ttl=LEASE,
        heartbeat=0.5,
        dispatch_grace=1,
        shutdown_grace=GRACE,
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running
    while len(stack.workers) < 2:
        stack.start_worker()
    stack.wait_for_workers(2)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def begun(stack: Stack, orchestrator: Orchestrator, message: str) -> tuple[TurnHandle, Child]:
    """A turn in the middle of a tool, and the worker that runs it."""
    handle = orchestrator.enqueue("tools", message)
    until(lambda: handle.info().steps == 1)
    return handle, worker_of(stack, handle.info().worker)


def taken_over(handle: TurnHandle) -> float:
    return until(lambda: handle.info().attempt == 2, what="a takeover")


def test_a_killed_worker_is_found_dead_by_its_watchdog(
    stack: Stack, orchestrator: Orchestrator, gate: Gate
) -> None:
    handle, victim = begun(stack, orchestrator, gate.message)
    kill(stack, victim)
    print(f"\ntaken over {taken_over(handle):.2f} s after kill -9")
    gate.open()
    assert "released" in handle.result(timeout=150).text
    # Not found by the sweep, when its lease had ended.
    until(lambda: "worker.died" in victim.log.read_text())
    [died] = [line for line in victim.log.read_text().splitlines() if "worker.died" in line]
    assert "freed=1" in died


def test_a_lost_machine_is_found_by_the_lease(
    stack: Stack, orchestrator: Orchestrator, gate: Gate
) -> None:
    handle, victim = begun(stack, orchestrator, gate.message)
    kill(stack, victim, machine=True)
    waited = taken_over(handle)
    print(f"\ntaken over {waited:.2f} s after worker and watchdog were killed, lease {LEASE:g} s")
    gate.open()
    assert "released" in handle.result(timeout=150).text


def test_a_worker_that_stops_in_order_leaves_no_watchdog(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    import psutil

    worker = stack.workers[0]
    [watchdog] = watchdogs(worker)
    worker.stop()
    stack.workers.remove(worker)
    assert worker.exit_code == 0
    assert "worker.died" not in worker.log.read_text()
    until(lambda: not psutil.pid_exists(watchdog))


def test_others_sweep_in_the_place_of_a_worker_that_is_lost(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    import redis

    client = redis.Redis.from_url(stack.redis_url, decode_responses=True)

    def leader() -> str:
        return str(client.get(ELECTION_KEY) or "")

    def sweepers() -> set[str]:
        found = client.hmget(SHARES_KEY, [f"owner:{group}" for group in range(SWEEP_GROUPS)])
        return {str(owner) for owner in found if owner is not None}

    names: list[str] = []

    def settled() -> bool:
        names[:] = [leader()]
        return names != [""] and len(sweepers()) == len(stack.workers)

    until(settled, what="shares of all")
    [first] = names
    kill(stack, worker_of(stack, first), machine=True)
    waited = until(
        lambda: first not in sweepers() and leader() not in ("", first), what="an election"
    )
    print(f"\nothers swept in its place after {waited:.2f} s")
    client.close()


def stops(worker: Child) -> None:
    """Wait until a worker has noticed a signal: a second one before would be lost."""
    until(lambda: "worker.stopping" in worker.log.read_text(), what="the stop")


def test_sigterm_twice_hands_back_at_once(
    stack: Stack, orchestrator: Orchestrator, gate: Gate
) -> None:
    handle, victim = begun(stack, orchestrator, gate.message)
    victim.signal(signal.SIGTERM)
    stops(victim)
    assert handle.info().attempt == 1
    victim.signal(signal.SIGTERM)
    waited = taken_over(handle)
    print(f"\ntaken over {waited:.2f} s after the second SIGTERM")
    assert waited < GRACE / 2
    assert handle.info().handbacks == 1
    gate.open()
    assert "released" in handle.result(timeout=150).text
    until(lambda: victim.exit_code == 0)
    stack.workers.remove(victim)


@pytest.mark.parametrize("signals", [(signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT)])
def test_a_cold_shutdown_hands_back_and_does_not_cancel(
    stack: Stack, orchestrator: Orchestrator, gate: Gate, signals: tuple[signal.Signals, ...]
) -> None:
    handle, victim = begun(stack, orchestrator, gate.message)
    for number in signals:
        victim.signal(number)
        stops(victim)
    assert taken_over(handle) < GRACE / 2
    gate.open()
    assert "released" in handle.result(timeout=150).text
    until(lambda: victim.exit_code is not None)
    stack.workers.remove(victim)


def test_a_worker_paused_beyond_its_lease_cannot_write(
    stack: Stack, orchestrator: Orchestrator, gate: Gate
) -> None:
    handle, sleeper = begun(stack, orchestrator, gate.message)
    with paused(sleeper):
        taken_over(handle)
        gate.open()
        text = handle.result(timeout=150).text
    assert "released" in text
    until(lambda: "turn.lost" in sleeper.log.read_text(), what="the zombie's surrender")
    assert handle.result().text == text
    assert len(orchestrator.history(handle.conversation_id)) == 4


def test_a_cancellation_finds_a_worker_that_was_away(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    handle, sleeper = begun(stack, orchestrator, '/nap {"seconds": 600}')
    with paused(sleeper):
        assert handle.cancel() is CancelOutcome.REQUESTED
        time.sleep(0.5)
    until(lambda: handle.status() is TurnStatus.CANCELLED)
    assert orchestrator.history(handle.conversation_id) == []


def test_a_tool_that_blocks_the_loop_stops_no_heartbeat(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    handle = orchestrator.enqueue("tools", f'/block {{"seconds": {LEASE + 3}}}')
    assert "unblocked" in handle.result(timeout=150).text
    assert handle.info().attempt == 1


def test_a_producer_that_dies_before_the_wake_up(stack: Stack, orchestrator: Orchestrator) -> None:
    turn_id = create_turn_id("c:dead-producer")
    new = NewTurn(
        turn_id=turn_id, conversation_id="c:dead-producer", agent="tools", input="are you there?"
    )
    orchestrator.store.enqueue([new])
    result = orchestrator.turn(turn_id).result(timeout=150)
    assert result.text == "You said: are you there?"


def test_wake_ups_that_a_killed_worker_had_taken_are_sent_again(tmp_path: Path) -> None:
    # One that holds more of them than it can start; the broker knows nothing of those.
    with (
        Stack(
            tmp_path,
            agents=("tests.acceptance.agents",),
            workers=1,
            flower=False,
            concurrency=2,
            heartbeat=0.5,
            dispatch_grace=1,
        ) as alone,
        Orchestrator(alone.settings) as orchestrator,
    ):
        handles = [orchestrator.enqueue("tools", '/count_up {"seconds": 1}') for _ in range(8)]
        until(lambda: sum(handle.info().steps > 0 for handle in handles) >= 2)
        kill(alone, alone.workers[0])
        alone.start_worker()
        for handle in handles:
            assert handle.result(timeout=150).text == "count_up: counted"


def test_a_rolling_restart_under_load_loses_and_repeats_nothing(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    handles = [
        orchestrator.enqueue("tools", '/count_up {"seconds": 0.3}', conversation_id=f"roll:{n}")
        for n in [*range(20)] * 5
    ]
    for worker in list(stack.workers):
        stack.start_worker()
        worker.signal(signal.SIGTERM)
        worker.signal(signal.SIGTERM)
        until(lambda w=worker: w.exit_code is not None)  # type: ignore[misc]
        stack.workers.remove(worker)
    assert_all_came_true(orchestrator, handles)
    for number in range(20):
        assert len(orchestrator.history(f"roll:{number}")) == 4 * 5
