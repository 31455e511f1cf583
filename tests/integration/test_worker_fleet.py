"""Keeping several processes running, with small programs in the place of workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from agentapi.errors import ConfigurationError
from orchestrator.stack import announcer as announcing
from orchestrator.stack import restarts, worker_fleet
from orchestrator.stack.announcer import Announcer, without_notify
from orchestrator.stack.worker_command import (
    other_name,
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

SERVES = """
import os, signal, sys, time
from pathlib import Path
from agentapi.readiness import report_ready
folder, name, wants = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def end(number, frame):
    log("ends")
    sys.exit(0)
def log(what):
    with (folder / "log").open("a") as file:
        print(name, what, file=file)
signal.signal(signal.SIGTERM, end)
log("starts")
while not (folder / wants).exists():
    time.sleep(0.01)
if (folder / "broken").exists():
    log("fails")
    sys.exit(3)
(folder / f"{name}.pid").write_text(str(os.getpid()))
log("ready")
report_ready()
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
    for number, sent in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), start=1):
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
    async with asyncio.timeout(60):
        assert await running == 0
    assert "fleet.killed worker=p0" in caplog.text


async def test_restarts_wait_longer_each_time(
    fleet: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restarts, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(restarts, "MAX_DELAY", 0.04)
    started = tmp_path / "started"
    program = f"print('started', file=open({str(started)!r}, 'a'))"
    made, running = fleet(program)
    await written(started, 5)
    made.pass_on(signal.SIGTERM)
    assert await running == 0
    delays = [line.rpartition("restart_in=")[2] for line in caplog.messages if "ended" in line]
    assert delays[:4] == ["0.01", "0.02", "0.04", "0.04"]


@pytest.mark.parametrize("settled_after", [15.0, 0.0])
async def test_a_failed_start_ends_the_others(
    fleet: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled_after: float
) -> None:
    """However long it takes: a busy machine is no reason to start it again and again."""
    monkeypatch.setattr(worker_fleet, "SETTLED_AFTER", settled_after)
    path = tmp_path / "a"
    # Not before the other one is ready to note a signal.
    wait = (
        "import sys, time; from pathlib import Path; path = Path(sys.argv[1])\n"
        "while not (path.exists() and path.read_text()): time.sleep(0.01)\nexit(3)"
    )
    _, running = fleet(f"{NOTES_SIGNALS}\0{path}\x001", f"{wait}\0{path}")
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
        assert await running == 1
    assert path.read_text().split() == ["ready", "SIGQUIT", "ready", "SIGTERM"]
    assert "fleet.watch_failed" in caplog.text


class Rolling:
    """A fleet of two programs that say when they are ready, and where they note what they do."""

    def __init__(self, folder: Path, *, kill_after: float = 30.0) -> None:
        self.folder = folder
        (folder / "go").touch()
        (folder / "go-b").touch()

        def command(name: str, wants: str) -> tuple[str, ...]:
            return (sys.executable, "-c", SERVES, str(folder), name, wants)

        self.announcer = Announcer(folder / "up", {})
        self.fleet = WorkerFleet(
            {name: command(name, "go") for name in ("p", "q")},
            others={name: (f"{name}-b", command(f"{name}-b", "go-b")) for name in ("p", "q")},
            env=os.environ,
            kill_after=kill_after,
            announcer=self.announcer,
        )
        self.running = asyncio.create_task(self.fleet.run())

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    async def until(self, *lines: str) -> None:
        """Wait until each of these was noted, and is the program's last note."""
        await asyncio.to_thread(
            until,
            lambda: (
                {note.split()[0]: note for note in self.log()}.items()
                >= {line.split()[0]: line for line in lines}.items()
            ),
            what=f"{lines}",
        )

    async def ready(self) -> None:
        await self.until("p ready", "q ready")
        await asyncio.to_thread(until, lambda: self.fleet.ready()[0] == 2)

    async def begin_roll(self) -> None:
        """Send SIGHUP; the first replacement starts, and is not ready before `go-b` is there."""
        (self.folder / "go-b").unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        await self.until("p-b starts")

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())


@pytest.fixture
async def rolling(tmp_path: Path) -> AsyncIterator[Rolling]:
    made = Rolling(tmp_path)
    await made.ready()
    yield made
    if not made.running.done():
        made.fleet.pass_on(signal.SIGTERM)
        made.fleet._kill()
    await made.running
    assert not (tmp_path / "up").exists()


async def message(caplog: pytest.LogCaptureFixture, text: str, times: int = 1) -> None:
    await asyncio.to_thread(until, lambda: caplog.text.count(text) >= times, what=text)


async def test_hangup_replaces_one_after_the_other(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await rolling.begin_roll()
    await asyncio.to_thread(until, (rolling.folder / "up").exists)
    # Nothing is stopped before the replacement is ready.
    assert rolling.fleet.ready() == (2, 2, True)
    assert not [note for note in rolling.log() if "ends" in note]
    (rolling.folder / "go-b").touch()
    await message(caplog, "fleet.rolled processes=2")
    order = rolling.log()[4:]
    assert order == [
        *("p-b starts", "p-b ready", "p ends"),
        *("q-b starts", "q-b ready", "q ends"),
    ]
    # And back to the first names.
    os.kill(os.getpid(), signal.SIGHUP)
    await message(caplog, "fleet.rolled processes=2", 2)
    assert rolling.log()[10:] == [
        *("p starts", "p ready", "p-b ends"),
        *("q starts", "q ready", "q-b ends"),
    ]
    # What was replaced is kept running like any other.
    os.kill(rolling.pid("q"), signal.SIGKILL)
    await message(caplog, "fleet.ended worker=q exit_code=-9")
    await asyncio.to_thread(until, lambda: rolling.log()[-1] == "q ready")


async def test_a_second_hangup_during_a_roll_makes_another_one_follow(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await rolling.begin_roll()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
    (rolling.folder / "go-b").touch()
    await message(caplog, "fleet.rolled processes=2", 2)
    assert rolling.log()[-1] == "q-b ends"
    assert caplog.text.count("fleet.rolling") == 2


async def test_a_replacement_that_fails_stops_the_roll_and_the_others_run_on(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (rolling.folder / "broken").touch()
    before = [rolling.pid("p"), rolling.pid("q")]
    os.kill(os.getpid(), signal.SIGHUP)
    await message(caplog, "fleet.roll_stopped replaced=0 processes=2")
    assert "fleet.replacement_failed worker=p by=p-b exit_code=3" in caplog.text
    assert rolling.log()[4:] == ["p-b starts", "p-b fails"]
    assert rolling.fleet.ready() == (2, 2, False)
    (rolling.folder / "broken").unlink()
    os.kill(os.getpid(), signal.SIGHUP)
    await message(caplog, "fleet.rolled processes=2")
    assert before != [rolling.pid("p-b"), rolling.pid("q-b")]


async def test_a_replacement_that_never_takes_turns_is_stopped(
    rolling: Rolling, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_fleet, "READY_WITHIN", 0.5)
    (rolling.folder / "go-b").unlink()
    os.kill(os.getpid(), signal.SIGHUP)
    await message(caplog, "fleet.roll_stopped replaced=0 processes=2")
    assert "fleet.replacement_failed worker=p by=p-b not_ready_after=0.5" in caplog.text
    assert rolling.fleet.ready() == (2, 2, False)


async def test_a_stop_during_a_roll_ends_old_and_new(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    await rolling.begin_roll()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(60):
        assert await rolling.running == 0
    assert sorted(note for note in rolling.log() if note.endswith("ends")) == [
        *("p ends", "p-b ends", "q ends"),
    ]
    assert "fleet.killed" not in caplog.text
    assert "roll_stopped" not in caplog.text


async def test_an_old_process_that_dies_during_the_roll_is_followed_by_its_replacement(
    rolling: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await rolling.begin_roll()
    os.kill(rolling.pid("p"), signal.SIGKILL)
    await asyncio.to_thread(until, lambda: rolling.fleet.ready()[0] == 1)
    (rolling.folder / "go-b").touch()
    await message(caplog, "fleet.rolled processes=2")
    assert "p starts" not in rolling.log()[4:]
    assert rolling.log()[-1] == "q ends"


class Unit:
    """What systemd does for a unit of `Type=notify`."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(60)

    def said(self) -> list[str]:
        return self._socket.recv(4096).decode().splitlines()

    def wait_for(self, state: str) -> None:
        """Wait until it is told this."""
        while state not in self.said():
            pass

    def close(self) -> None:
        self._socket.close()


async def test_the_announcer_speaks_to_systemd(tmp_path: Path) -> None:
    unit = Unit(tmp_path)
    announcer = Announcer(None, {"NOTIFY_SOCKET": unit.address})
    announcer._announce(1, 2, False)
    assert unit.said() == ["STATUS=1 of 2 processes take turns"]
    announcer._announce(2, 2, False)
    assert unit.said()[0] == "READY=1"
    announcer._announce(2, 2, True)
    assert (unit.said()[0], announcer._said[:9]) == ("RELOADING=1", "RELOADING")
    announcer._announce(1, 2, False)
    assert unit.said() == ["READY=1", "STATUS=1 of 2 processes take turns"]
    assert without_notify({"NOTIFY_SOCKET": "x", "A": "b"}) == {"A": "b"}
    unit.close()


async def test_the_announcer_survives_an_error_that_nobody_expected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "BEAT", 0.01)
    answers = iter([ZeroDivisionError("x"), ZeroDivisionError("x")])

    def ready() -> tuple[int, int, bool]:
        for error in answers:
            raise error
        return 1, 1, False

    file = tmp_path / "up"
    running = asyncio.create_task(Announcer(file, {}).run(ready))
    await asyncio.to_thread(until, file.exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert caplog.text.count("fleet.not_announced") == 1
    assert not file.exists()


def test_a_ready_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--ready-file: .* cannot be written"):
        Announcer(tmp_path / "absent" / "ready", {})


def test_names_and_flags() -> None:
    assert worker_names("w", 1) == ["w"]
    assert worker_names("w", 2) == ["w-1", "w-2"]
    assert worker_names("w@here", 2) == ["w-1@here", "w-2@here"]
    assert [other_name(name) for name in ("w-1", "w@here")] == ["w-1-b", "w-b@here"]
    assert worker_command("w", ["-E"])[-3:] == ["-n", "w@%h", "-E"]
    assert worker_command("w@here")[-1] == "w@here"
    assert "--quiet" not in worker_command("w")
    assert "--quiet" in worker_command("w", log_format="json")
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
