"""Keeping several processes running, with small programs in the place of workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from agentapi.errors import ConfigurationError
from orchestrator.stack import worker_fleet
from orchestrator.stack.worker_command import (
    refuse_own_flags,
    refuse_shadowed_packages,
    worker_command,
    worker_names,
)
from orchestrator.stack.worker_fleet import Changes, WorkerFleet
from tests.faults import until

NOTES_SIGNALS = """
import signal, sys, time
got = []
def note(number, frame):
    got.append(number)
    with open(sys.argv[1], "a") as file:
        print(signal.Signals(number).name, file=file)
    if len(got) == int(sys.argv[2]):
        sys.exit(0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, note)
with open(sys.argv[1], "a") as file:
    print("ready", file=file)
while True:
    time.sleep(60)
"""


class Start(Protocol):
    def __call__(
        self, *programs: str, kill_after: float = 30.0, changes: Changes | None = None
    ) -> tuple[WorkerFleet, asyncio.Task[int]]: ...


@pytest.fixture
async def fleet() -> AsyncIterator[Start]:
    """Starts fleets; what still runs at the end is killed."""
    started: list[tuple[WorkerFleet, asyncio.Task[int]]] = []

    def start(
        *programs: str, kill_after: float = 30.0, changes: Changes | None = None
    ) -> tuple[WorkerFleet, asyncio.Task[int]]:
        commands = {
            f"p{number}": (sys.executable, "-c", *program.split("\0"))
            for number, program in enumerate(programs)
        }
        made = WorkerFleet(commands, env=os.environ, kill_after=kill_after, changes=changes)
        started.append((made, asyncio.create_task(made.run())))
        return started[-1]

    yield start
    for made, running in started:
        if not running.done():
            made.pass_on(signal.SIGTERM)
            made._kill()
            await running


async def written(path: Path, lines: int) -> None:
    """Wait until a file has so many lines."""
    await asyncio.to_thread(
        until, lambda: path.exists() and len(path.read_text().splitlines()) >= lines
    )


async def test_each_signal_is_passed_on(fleet: Start, tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    _, running = fleet(*(f"{NOTES_SIGNALS}\0{path}\x003" for path in paths))
    for number, sent in enumerate((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT), start=1):
        for path in paths:
            await written(path, number)
        os.kill(os.getpid(), sent)
    assert await running == 0
    for path in paths:
        assert path.read_text().split() == ["ready", "SIGTERM", "SIGINT", "SIGQUIT"]


async def test_a_process_that_does_not_end_is_killed(
    fleet: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, running = fleet(f"{NOTES_SIGNALS}\0{tmp_path / 'a'}\x009", kill_after=0.3)
    await written(tmp_path / "a", 1)
    made.pass_on(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await running == 0
    assert "fleet.killed worker=p0" in caplog.text


async def test_restarts_wait_longer_each_time(
    fleet: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_fleet, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(worker_fleet, "MAX_DELAY", 0.04)
    started = tmp_path / "started"
    program = f"print('started', file=open({str(started)!r}, 'a'))"
    made, running = fleet(program)
    await written(started, 5)
    made.pass_on(signal.SIGTERM)
    assert await running == 0
    delays = [line.rpartition("restart_in=")[2] for line in caplog.messages if "ended" in line]
    assert delays[:4] == ["0.01", "0.02", "0.04", "0.04"]


async def test_a_failed_start_ends_the_others(fleet: Start, tmp_path: Path) -> None:
    path = tmp_path / "a"
    wait = f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)\nexit(3)"
    _, running = fleet(f"{NOTES_SIGNALS}\0{path}\x001", wait)
    async with asyncio.timeout(30):
        assert await running == 3
    assert path.read_text().split() == ["ready", "SIGTERM"]


async def test_a_change_restarts_and_a_broken_watch_ends(
    fleet: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a"

    async def changes() -> AsyncIterator[str]:
        await written(path, 1)
        yield "agents.py"
        await written(path, 3)
        raise OSError("no more watches")

    _, running = fleet(f"{NOTES_SIGNALS}\0{path}\x001", changes=changes)
    async with asyncio.timeout(30):
        assert await running == 1
    assert path.read_text().split() == ["ready", "SIGQUIT", "ready", "SIGTERM"]
    assert "fleet.watch_failed" in caplog.text


def test_names_and_flags() -> None:
    assert worker_names("w", 1) == ["w"]
    assert worker_names("w", 2) == ["w-1", "w-2"]
    assert worker_names("w@here", 2) == ["w-1@here", "w-2@here"]
    assert worker_command("w", ["-E"])[-3:] == ["-n", "w@%h", "-E"]
    assert worker_command("w@here")[-1] == "w@here"
    refuse_own_flags(["-E", "--queues=n", "-Q", "--name"])
    for flag in ("-n", "-nw", "--hostname=w", "-D"):
        with pytest.raises(ConfigurationError, match="cannot be passed to Celery"):
            refuse_own_flags([flag])


def test_our_own_packages_hide_nothing(tmp_path: Path) -> None:
    refuse_shadowed_packages(Path.cwd())
    # An empty folder is a package only where there is no other.
    (tmp_path / "workers").mkdir()
    refuse_shadowed_packages(tmp_path)
    for name in ("agentapi", "orchestrator"):
        (tmp_path / f"{name}.py").touch()
        with pytest.raises(ConfigurationError, match=f"own package '{name}'"):
            refuse_shadowed_packages(tmp_path)
        (tmp_path / f"{name}.py").unlink()
