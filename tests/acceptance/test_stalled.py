"""A worker that does no work ends, and its turns go on elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi.supervision import EXIT_CODE
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.faults import until, worker_of

WAIT = 60


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path,
        agents=("tests.acceptance.agents",),
        workers=2,
        flower=False,
        lease_ttl=5,
        heartbeat=0.5,
        dispatch_grace=1,
    ) as running:
        yield running


def test_a_worker_whose_event_loop_is_blocked_ends(stack: Stack) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        blocking = orchestrator.enqueue("tools", '/block {"seconds": 300}')
        until(lambda: blocking.info().steps == 1)
        stalled = worker_of(stack, blocking.info().worker)
        # Some of them go to it, and stand still with it.
        beside = [orchestrator.enqueue("tools", '/count_up {"seconds": 1}') for _ in range(12)]
        for handle in beside:
            assert handle.result(timeout=WAIT).text == "count_up: counted"
        until(lambda: stalled.exit_code is not None, WAIT)
        assert stalled.exit_code == EXIT_CODE
        stack.workers.remove(stalled)
    log = stalled.log.read_text()
    assert "process.stalled what=loop" in log
    assert "tests/acceptance/agents.py" in log
