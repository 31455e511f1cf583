"""A turn that kills its worker takes only itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentapi import TurnStatus
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.faults import until, watchdogs, worker_of
from tests.gate import Gate


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=2,
        flower=False,
        heartbeat=0.5,
        dispatch_grace=1,
        shutdown_grace=60,
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running


def restart_dead(stack: Stack) -> int:
    """What a supervisor does; returns how many workers were dead."""
    dead = [worker for worker in stack.workers if worker.exit_code is not None]
    for worker in dead:
        stack.workers.remove(worker)
        stack.start_worker()
    return len(dead)


def ended(stack: Stack, handles: list[TurnHandle], timeout: float = 90) -> int:
    """Wait for the turns' ends; returns how many workers died meanwhile."""
    deaths = 0

    def all_ended() -> bool:
        nonlocal deaths
        deaths += restart_dead(stack)
        return all(handle.info().status.ended for handle in handles)

    until(all_ended, timeout, "the end of all turns")
    return deaths


@pytest.mark.parametrize("how", ["killed", "crashed", "exited"])
def test_poison_takes_only_itself(stack: Stack, orchestrator: Orchestrator, how: str) -> None:
    innocents = [orchestrator.enqueue("tools", '/nap {"seconds": 1}') for _ in range(12)]
    poison = orchestrator.enqueue("tools", f'/die {{"how": "{how}"}}')
    deaths = ended(stack, [*innocents, poison])
    assert deaths <= 2
    assert {handle.info().status for handle in innocents} == {TurnStatus.COMPLETED}
    turn = poison.info()
    assert turn.status is TurnStatus.FAILED
    assert turn.error is not None
    assert turn.error.code == "poison"
    assert turn.deaths == 3


def test_workers_that_are_killed_again_and_again_count_towards_nothing(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    handle = orchestrator.enqueue("tools", gate.message)
    for attempt in range(1, 5):
        until(lambda attempt=attempt: handle.info().attempt >= attempt)  # type: ignore[misc]
        worker_of(stack, handle.info().worker).kill()
        restart_dead(stack)
    gate.open()
    ended(stack, [handle])
    turn = handle.info()
    assert turn.status is TurnStatus.COMPLETED
    assert turn.losses >= 1
    assert turn.deaths == 0


def test_a_suspect_turn_is_cancelled_in_its_own_process(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    handle = orchestrator.enqueue("tools", Gate(tmp_path / "gate").message)
    until(lambda: handle.info().steps == 1)
    worker_of(stack, handle.info().worker).kill()
    restart_dead(stack)
    until(lambda: handle.info().attempt == 2)
    handle.cancel()
    ended(stack, [handle])
    assert handle.info().status is TurnStatus.CANCELLED


def test_a_suspect_turn_is_handed_back_when_its_worker_goes(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    handle = orchestrator.enqueue("tools", gate.message)
    until(lambda: handle.info().steps == 1)
    worker_of(stack, handle.info().worker).kill()
    restart_dead(stack)
    until(lambda: handle.info().attempt == 2)
    worker = worker_of(stack, handle.info().worker)
    # The watchdog, and the turn's own process.
    until(lambda: len(watchdogs(worker)) == 2)
    processes = [psutil.Process(pid) for pid in watchdogs(worker)]
    worker.kill()
    restart_dead(stack)
    until(lambda: handle.info().attempt >= 3)
    assert handle.info().handbacks >= 1
    until(lambda: not any(process.is_running() for process in processes))
    gate.open()
    ended(stack, [handle])
    assert handle.info().status is TurnStatus.COMPLETED


def test_a_worker_without_its_watchdog_ends_in_order(stack: Stack) -> None:
    worker = stack.workers[0]
    until(lambda: len(watchdogs(worker)) == 1)
    [watchdog] = watchdogs(worker)
    os.kill(watchdog, signal.SIGKILL)
    until(lambda: worker.exit_code is not None)
    assert "watchdog.ended" in worker.log.read_text()
    assert restart_dead(stack) == 1
    stack.wait_for_workers(2)
