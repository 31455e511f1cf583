"""The heartbeat outlives what nobody expected, and loses no lease by a neighbour's fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from agentapi import load_settings
from agentapi.admission import ProviderGate
from agentapi.errors import StoreUnavailable
from agentapi.stores import Lease, Renewal, TurnStore
from agentapi.supervision import Supervisor
from workers.outage import Outage
from workers.turns.running import RunningTurn, RunningTurns, StopReason
from workers.upkeep.heartbeat import Heartbeat

WAIT = 30


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


class Store:
    """Renews; refuses one turn, and raises what it is told next."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.renewed = threading.Semaphore(0)

    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        if self.errors:
            raise self.errors.pop(0)
        if any(lease.turn_id == "faulty" for lease in leases):
            raise RuntimeError("a hash where a list should be")
        self.renewed.release()
        return [Renewal(held=True) for _ in leases]


class Gate:
    """Knows no provider, and raises."""

    def __init__(self) -> None:
        self.looked = threading.Semaphore(0)

    def look(self) -> None:
        self.looked.release()
        raise Panic


class Parts:
    def __init__(self, *turns: str, vouches: bool = True) -> None:
        self.store, self.gate = Store(), Gate()
        self.running = RunningTurns()
        self.supervisor = Supervisor(fatal=self.never)
        for turn_id in turns:
            self.running.add(running(turn_id))
        self.heartbeat = Heartbeat(
            load_settings(heartbeat=0.001),
            cast("TurnStore", self.store),
            self.running,
            cast("ProviderGate", self.gate),
            Outage(),
            supervisor=self.supervisor,
            vouches=lambda: vouches,
        )

    def never(self, name: str) -> None:
        raise AssertionError(name)


def running(turn_id: str) -> RunningTurn:
    lease = Lease(conversation_id="c", turn_id=turn_id, epoch=1, token="t", generation=0)
    nothing: Any = None
    return RunningTurn(lease=lease, loop=nothing, threads=nothing)


@pytest.mark.parametrize("error", [RuntimeError("x"), Panic(), StoreUnavailable("away")])
def test_it_beats_on_after_any_error(error: BaseException) -> None:
    parts = Parts("one")
    parts.store.errors = [error] * 5
    parts.heartbeat.start()
    for _ in range(20):
        assert parts.store.renewed.acquire(timeout=WAIT)
        # Nor does what providers did end it.
        assert parts.gate.looked.acquire(timeout=WAIT)
    parts.heartbeat.stop()


def test_a_stop_that_failed_is_heard_when_it_is_repeated() -> None:
    class Loop:
        full = True
        called = 0

        def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
            if self.full:
                raise MemoryError
            self.called += 1
            call()

    class Task:
        cancelled = 0

        def cancel(self) -> None:
            self.cancelled += 1

    turn = running("one")
    loop, task = Loop(), Task()
    turn.loop, turn._task = cast("Any", loop), cast("Any", task)
    with pytest.raises(MemoryError):
        turn.stop(StopReason.CANCELLED)
    loop.full = False
    for _ in range(3):
        turn.stop(StopReason.LEASE_LOST)
    assert (loop.called, task.cancelled, turn.reason) == (1, 1, StopReason.CANCELLED)


def test_a_lease_with_a_fault_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts("one", "faulty", "two")
    assert parts.heartbeat.beat()
    assert [parts.store.renewed.acquire(blocking=False) for _ in range(3)] == [True, True, False]
    assert "lease.not_renewed conversation_id=c turn_id=faulty error=RuntimeError" in caplog.text


def test_it_does_not_vouch_for_a_process_that_hangs() -> None:
    parts = Parts("one", vouches=False)
    assert not parts.heartbeat.beat()
    assert not parts.store.renewed.acquire(blocking=False)
