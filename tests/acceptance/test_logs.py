"""The JSON log of real processes: every line of each, whatever happens to them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from agentapi.errors import TurnFailed
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from orchestrator.stack.worker_command import worker_command
from tests.collector import Collector, collecting
from tests.faults import kill, until, worker_of

SECRET: Final = "larkspur"
"""What people, models and tools say here; it must be in no log."""

TURN: Final = {"conversation_id", "turn_id"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    made = Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.traced", "tests.acceptance.agents"),
        workers=2,
        flower=False,
        gateway=True,
        env=collector.env(),
        log_format="json",
        heartbeat=0.5,
        dispatch_grace=1,
    )
    with made:
        yield made


def lines_of(path: Path) -> list[dict[str, Any]]:
    """All lines of a process, each of which must be an object with the documented fields."""
    found = []
    for text in path.read_text().splitlines():
        line = json.loads(text)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), text
        assert line["level"] in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), text
        assert isinstance(line["logger"], str), text
        assert ("event" in line) != ("message" in line), text
        if "turn_id" in line:
            assert line.keys() >= TURN, text
        assert SECRET not in text
        found.append(line)
    return found


def test_every_line_of_every_process_is_json_without_content(
    stack: Stack, collector: Collector
) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        burnt = orchestrator.enqueue("boss", f'/burn {{"paper": "{SECRET}"}}')
        assert SECRET in burnt.result(150).text
        # A provider whose fault quotes what was said.
        faulty = orchestrator.enqueue("faulty", SECRET)
        with pytest.raises(TurnFailed):
            faulty.result(150)
        lost = orchestrator.enqueue("boss", f"/dig {{}} {SECRET}\n/dig {{}}")
        until(lambda: lost.info().steps == 1, 150, "the call of the tool")
        victim = worker_of(stack, lost.info().worker)
        kill(stack, victim)
        lost.result(150)
        # Its watchdog says so once others have its turns.
        until(lambda: "worker.died" in victim.log.read_text())
    _ask(stack, {"model": "scout", "input": SECRET})
    with pytest.raises(urllib.error.HTTPError):
        _ask(stack, {"model": "scout", "input": {"no": SECRET}})
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{stack.gateway_url}/{SECRET}", timeout=150)
    stack.stop()

    logs = {path.stem: lines_of(path) for path in (stack.folder / "logs").glob("[wg]*.log")}
    assert set(logs) == {"worker1", "worker2", "gateway"}
    everything = [line for lines in logs.values() for line in lines]
    events = {line.get("event") for line in everything}
    assert events >= {
        *("worker.started", "worker.stopping", "worker.died", "turn.isolated"),
        *("turn.completed", "turn.failed", "turn.crashed", "gateway.listening", "request"),
        "gateway.stopping",
    }
    # Celery's own lines are there too.
    assert {line["logger"] for line in everything if "message" in line} & {"celery.apps.worker"}
    ended = [line for line in everything if line.get("event") in ("turn.completed", "turn.failed")]
    assert {burnt.turn_id, faulty.turn_id, lost.turn_id} <= {line["turn_id"] for line in ended}
    traces = {span.attributes.get("agentapi.turn.id"): span.trace for span in collector.spans}
    for line in ended:
        assert isinstance(line["attempt"], int)
        # A killed process has not exported its newest spans.
        assert line["trace_id"] == traces.get(line["turn_id"], line["trace_id"])
    assert {lost.turn_id, faulty.turn_id} & set(traces)


def _ask(stack: Stack, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(
        f"{stack.gateway_url}/v1/responses",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=150) as response:
        answer: bytes = response.read()
    return answer


@pytest.mark.parametrize(
    ("command", "variables", "event"),
    [
        (worker_command("w"), {"AGENTAPI_AGENTS": ""}, "worker.cannot_start"),
        (worker_command("w"), {"AGENTAPI_CONCURRENCY": "none"}, "worker.cannot_start"),
        (["-m", "orchestrator.cli.main", "gateway"], {"AGENTAPI_EAGER": "1"}, "command.failed"),
        (["-m", "orchestrator.cli.main", "worker", "--nope"], {}, "command.failed"),
    ],
)
def test_a_process_that_cannot_start_says_so_in_its_log(
    tmp_path: Path, command: list[str], variables: dict[str, str], event: str
) -> None:
    program = command if command[0] == sys.executable else [sys.executable, *command]
    ran = subprocess.run(
        program,
        env={**os.environ, "AGENTAPI_LOG_FORMAT": "json", "PYTHONWARNINGS": "", **variables},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode > 0
    assert ran.stdout == ""
    log = tmp_path / "log"
    log.write_text(ran.stderr)
    assert lines_of(log)[-1]["event"] == event


def test_a_crash_is_a_line_without_its_text(tmp_path: Path) -> None:
    program = f"""
import threading, warnings
from agentapi.logs import configure_logging
configure_logging("INFO", "json")
warnings.warn("mind the gap")
def fail():
    try:
        raise ValueError("{SECRET[:4]}" + "{SECRET[4:]}")
    except ValueError as error:
        raise RuntimeError("{SECRET[:4]}" + "{SECRET[4:]}") from error
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False
    )
    assert ran.returncode == 1
    log = tmp_path / "log"
    log.write_text(ran.stderr)
    warned, thread, crashed = lines_of(log)
    assert "mind the gap" in warned["message"]
    assert (thread["event"], thread["error"]) == ("thread.crashed", "RuntimeError")
    assert (crashed["event"], crashed["error"]) == ("process.crashed", "RuntimeError")
    assert "ValueError\ncaused the next one\n" in crashed["detail"]


def test_a_second_signal_prints_nothing_either(tmp_path: Path) -> None:
    """Celery says something at each signal."""
    stack = Stack(
        tmp_path, agents=("tests.acceptance.traced",), workers=1, flower=False, log_format="json"
    )
    with stack, Orchestrator(stack.settings) as orchestrator:
        turn = orchestrator.enqueue("boss", "/dig {}")
        until(lambda: turn.info().steps == 1, 150, "the call of the tool")
        [worker] = stack.workers
        for number in (signal.SIGINT, signal.SIGINT):
            worker.signal(number)
            until(lambda: "worker.stopping" in worker.log.read_text(), 150, "the stop")
        until(lambda: worker.exit_code is not None, 150, "the end of the worker")
        stack.workers.remove(worker)
        assert "turn.handed_back" in {line.get("event") for line in lines_of(worker.log)}
