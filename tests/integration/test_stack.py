"""The stack's processes: started, found broken, stopped, and never left behind."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import redis

from agentapi.errors import ConfigurationError
from orchestrator.stack import Child, Stack, start_valkey
from orchestrator.stack.keeper import WorkerKeeper
from orchestrator.stack.processes import free_port
from tests.faults import until


def python(tmp_path: Path, code: str) -> Child:
    return Child("child", [sys.executable, "-c", code], log=tmp_path / "child.log")


def test_a_child_that_ended_shows_the_end_of_its_log(tmp_path: Path) -> None:
    child = python(tmp_path, "print('this is why'); raise SystemExit(3)")
    until(lambda: child.exit_code is not None)
    with pytest.raises(ConfigurationError, match=r"exit code 3(.|\n)*this is why"):
        child.check()


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(60)"
    )
    child = python(tmp_path, code)
    until(lambda: "up" in child.tail())
    child.stop(timeout=0.2)
    assert child.exit_code == -9


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom orchestrator.stack import Child\n"
        f"child = Child('c', ['sleep', '60'], log=Path({str(tmp_path / 'c.log')!r}))\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_valkey_keeps_its_data_in_its_folder(tmp_path: Path) -> None:
    for run in range(2):
        valkey, url = start_valkey(tmp_path)
        client = redis.Redis.from_url(url)
        assert client.incr("runs") == run + 1
        client.close()
        valkey.stop()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="valkey ended with exit code"):
            start_valkey(tmp_path, taken.getsockname()[1])


def kept(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Stack, list[str]]:
    """A stack with one worker that is really this program, and what its keeper tells."""
    command = [sys.executable, "-c", code]
    monkeypatch.setattr("orchestrator.stack.stack.worker_command", lambda name: command)
    monkeypatch.setattr("orchestrator.stack.restarts.FIRST_DELAY", 0.01)
    stack = Stack(folder, redis_url="redis://127.0.0.1:1", flower=False)
    stack.start_worker()
    told: list[str] = []
    return stack, told


def kill_and_replace(stack: Stack, keeper: WorkerKeeper) -> None:
    [worker] = stack.workers
    worker.kill()

    def replaced() -> bool:
        keeper.look()
        return stack.workers != [worker]

    until(replaced)


def test_a_worker_that_is_killed_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, told = kept(tmp_path, "import time; time.sleep(60)", monkeypatch)
    keeper = WorkerKeeper(stack, told.append)
    keeper.look()
    assert told == []
    for _ in range(2):
        kill_and_replace(stack, keeper)
    assert told[0] == "worker1 was killed by SIGKILL; restarting it in 0.01 s"
    assert told[2] == "worker2 was killed by SIGKILL; restarting it in 0.02 s"
    assert re.fullmatch(r"worker3 \(pid \d+\) replaces worker2", told[3])
    assert [worker.exit_code for worker in stack.workers] == [None]
    stack.stop()


def test_workers_that_cannot_run_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, told = kept(tmp_path, "raise SystemExit('this is why')", monkeypatch)
    keeper = WorkerKeeper(stack, told.append)
    with pytest.raises(ConfigurationError) as caught:
        until(keeper.look)
    assert "6 workers in a row ended within 15 s of their start" in str(caught.value)
    assert "worker6 ended with exit code 1" in str(caught.value)
    assert "this is why" in str(caught.value)
    assert len([text for text in told if "restarting" in text]) == 5


def test_a_worker_that_ran_for_long_is_no_sign_of_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, told = kept(tmp_path, "import time; time.sleep(60)", monkeypatch)
    keeper = WorkerKeeper(stack, told.append)
    for _ in range(7):
        [worker] = stack.workers
        worker.started -= 60
        kill_and_replace(stack, keeper)
    assert all("in 0.01 s" in text for text in told if "restarting" in text)
    stack.stop()


def test_no_connection_takes_a_free_port() -> None:
    first = free_port(3)
    with ExitStack() as servers:
        for port in range(first, first + 3):
            server = servers.enter_context(socket.create_server(("127.0.0.1", port)))
            connection = servers.enter_context(socket.create_connection(server.getsockname()))
            assert connection.getsockname()[1] > first + 3


def test_a_stack_whose_worker_does_not_start_stops_what_it_started(tmp_path: Path) -> None:
    stack = Stack(tmp_path, agents=("no.such.module",), workers=1, flower=False)
    with pytest.raises(ConfigurationError, match=r"worker1 ended(.|\n)*no\.such\.module"):
        stack.start()
    assert [child.exit_code is None for child in stack.children] == [False, False]
