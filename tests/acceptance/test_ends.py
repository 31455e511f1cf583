"""Hooks and followers learn of every end, whatever dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.faults import until


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def stack(tmp_path: Path, ledger: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path / "stack",
        agents=("tests.acceptance.with_hooks",),
        workers=2,
        flower=False,
        env={"HOOK_LEDGER": str(ledger)},
        # An end is told again when a worker has not renewed its claim for so long.
        lease_ttl=6,
        heartbeat=0.5,
        dispatch_grace=1,
    ) as running:
        yield running


def test_a_worker_that_dies_in_the_hook(stack: Stack, ledger: Path) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        deadly = orchestrator.enqueue("told", "kill")
        # Its worker is killed after the commit; the other one tells the hook again.
        until(lambda: ledger.exists() and ledger.read_text().count("completed") == 2)
        waiting = orchestrator.enqueue("told", '/sign {"paper": "a"}')
        until(lambda: waiting.status() == "parked")
        # Ended by this process, which has no hooks.
        waiting.cancel()
        until(lambda: "cancelled" in ledger.read_text())
        ends = list(orchestrator.ends("start", timeout=0))
    assert {(end.turn_id, end.status.value) for end in ends} == {
        (deadly.turn_id, "completed"),
        (waiting.turn_id, "cancelled"),
    }
    told = Counter(line.split()[1] for line in ledger.read_text().splitlines())
    assert told == {end.id: 2 if end.turn_id == deadly.turn_id else 1 for end in ends}
    stack.workers[:] = [worker for worker in stack.workers if worker.exit_code is None]
