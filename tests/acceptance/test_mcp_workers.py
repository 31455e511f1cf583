"""MCP servers of real worker processes: killed, started again, and gone with their workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentapi import TurnStatus
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.fakes.mcp_process import MODULE, McpProcess
from tests.faults import until

KEY = "a-key-in-an-address"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[McpProcess]:
    running = McpProcess(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def stack(tmp_path: Path, server: McpProcess) -> Iterator[Stack]:
    with Stack(
        tmp_path, agents=("tests.acceptance.with_mcp",), workers=2, flower=False,
        heartbeat=0.5, dispatch_grace=1, shutdown_grace=1, provider_max_retries=50, park_after=0.5,
        env={"SHELF_URL": f"{server.url}?key={KEY}"},
    ) as running:  # fmt: skip
        yield running


def own_servers(stack: Stack) -> dict[int, list[psutil.Process]]:
    """By worker: the servers that it has started."""
    return {
        worker.pid: [
            child
            for child in psutil.Process(worker.pid).children(recursive=True)
            if MODULE[1] in child.cmdline()
        ]
        for worker in stack.workers
    }


def test_servers_of_workers(stack: Stack, server: McpProcess) -> None:
    with Orchestrator(stack.settings) as orchestrator:

        def read(agent: str, tool: str) -> TurnHandle:
            return orchestrator.enqueue(agent, f'/{tool} {{"title": "Emma"}}')

        # One server a worker, however many turns use it.
        for turn in [read("over_stdio", "shelf_read") for _ in range(10)]:
            assert "Emma, by nobody" in turn.result(timeout=150).text
        before = own_servers(stack)
        assert max(map(len, before.values())) == 1

        # A server that is down: the turns wait without a worker, and go on when it is back.
        assert "Emma, by bob" in read("over_http", "web_read").result(timeout=150).text
        server.kill()
        waiting = [read("over_http", "web_read") for _ in range(4)]
        until(lambda: any(turn.status() is TurnStatus.PARKED for turn in waiting), timeout=150)
        server.start()
        for turn in waiting:
            assert "Emma, by bob" in turn.result(timeout=90).text

        # A worker that is killed takes its server with it, and so does one that is stopped.
        killed, stopped = stack.workers
        killed.kill()
        stopped.stop()
        for process in (process for found in before.values() for process in found):
            process.wait(timeout=150)
    # One of them may have done everything.
    logs = [worker.log.read_text() for worker in (killed, stopped)]
    assert any("turn.completed" in log for log in logs)
    for log in logs:
        assert KEY not in log
        assert "Emma" not in log
