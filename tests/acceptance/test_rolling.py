"""`agentapi worker` replaces its processes while turns run, as `systemctl reload` asks it to."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import httpx2
import psutil
import pytest

from agentapi import TurnStatus, load_settings
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack.processes import free_port
from tests.acceptance.terminal import COMMAND, Terminal
from tests.acceptance.test_worker_command import pid_of, processes_in, wait_for, worker
from tests.faults import until
from tests.integration.test_worker_fleet import Unit

AGENTS = """
import time

from agentapi import Agent, tool


@tool
def nap(seconds: float) -> str:
    \"\"\"Sleep.\"\"\"
    time.sleep(seconds)
    return "VERSION"


agent = Agent(name="napper", provider="offline", tools=[nap])
"""


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    write(tmp_path, "one")
    return tmp_path


def write(folder: Path, version: str) -> None:
    (folder / "mine.py").write_text(AGENTS.replace("VERSION", version))


class Load:
    """Turns that are enqueued, a few at a time, until it is stopped."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.turns: list[TurnHandle] = []
        self._orchestrator = orchestrator
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            number = len(self.turns)
            said = '/nap {"seconds": 0.2}'
            self.turns.append(
                self._orchestrator.enqueue("napper", said, conversation_id=f"c:{number % 20}")
            )

    def stop(self) -> list[TurnHandle]:
        self._stop.set()
        self._thread.join()
        return self.turns


def serves(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=150).status_code == 200
    except httpx2.TransportError:
        return False


def test_a_reload_under_load_loses_no_turn(agents: Path, redis_url: str) -> None:
    settings = load_settings(redis_url=redis_url)
    first = free_port(2)
    options = ("--agents", "mine", "--name", "w", "--processes", "2", "--ready-file", "up")
    os.environ["AGENTAPI_METRICS_PORT"] = str(first)
    unit = Unit(agents)
    os.environ["NOTIFY_SOCKET"] = unit.address
    try:
        with (
            worker(agents, redis_url, *options) as process,
            Orchestrator(settings) as orchestrator,
        ):
            wait_for(settings, "w-1", "w-2")
            until((agents / "up").exists)
            unit.wait_for("READY=1")
            before = [pid_of(agents, name) for name in ("w-1", "w-2")]
            load = Load(orchestrator)
            until(lambda: len(load.turns) > 10)
            write(agents, "two")
            process.send_signal(signal.SIGHUP)
            log = agents / "worker.log"
            unit.wait_for("RELOADING=1")
            until(lambda: "fleet.rolled processes=2" in log.read_text(), what="the roll")
            unit.wait_for("READY=1")
            assert (agents / "up").exists()
            turns = load.stop()
            after = orchestrator.enqueue("napper", '/nap {"seconds": 0}')
            for turn in (*turns, after):
                turn.result(timeout=150)
                assert turn.status() is TurnStatus.COMPLETED
            assert "two" in after.result().text
            wait_for(settings, "w-1-b", "w-2-b")
            assert not any(psutil.pid_exists(pid) for pid in before)
            # Each has taken the port of the one that it replaced.
            for port in (first, first + 1):
                until(lambda port=port: serves(port), what=f"metrics on {port}")  # type: ignore[misc]
            process.send_signal(signal.SIGTERM)
            assert process.wait(150) == 0
            assert not (agents / "up").exists()
    finally:
        del os.environ["AGENTAPI_METRICS_PORT"], os.environ["NOTIFY_SOCKET"]
        unit.close()
    assert "fleet.killed" not in log.read_text()
    assert len(turns) > 10


def test_a_reload_to_broken_code_keeps_the_old_workers(agents: Path, redis_url: str) -> None:
    settings = load_settings(redis_url=redis_url)
    with (
        worker(agents, redis_url, "--agents", "mine", "--supervise") as process,
        Orchestrator(settings) as orchestrator,
    ):
        wait_for(settings, "worker")
        pid = pid_of(agents, "worker")
        (agents / "mine.py").write_text("agent = ")
        process.send_signal(signal.SIGHUP)
        log = agents / "worker.log"
        until(lambda: "fleet.roll_stopped replaced=0 processes=1" in log.read_text())
        assert "fleet.replacement_failed worker=worker by=worker-b exit_code=1" in log.read_text()
        assert "which cannot be imported: SyntaxError at mine.py line 1" in log.read_text()
        assert orchestrator.enqueue("napper", "hi").result(timeout=150).text
        assert pid_of(agents, "worker") == pid
        wait_for(settings, "worker")
        process.send_signal(signal.SIGTERM)
        assert process.wait(150) == 0


def test_workers_end_with_their_terminal(agents: Path, redis_url: str) -> None:
    """A closed terminal sends SIGHUP too, and nobody could stop the workers then."""
    settings = load_settings(redis_url=redis_url)
    command = (*COMMAND, "worker", "--agents", "mine", "--processes", "2")
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = root
    try:
        terminal = Terminal(redis_url=redis_url, cwd=agents, command=command)
    finally:
        del os.environ["PYTHONPATH"]
    try:
        wait_for(settings, "worker-1", "worker-2")
        os.close(terminal._terminal)
        terminal._process.wait(150)
        until(lambda: not processes_in(agents))
    except BaseException:
        terminal._process.kill()
        raise
