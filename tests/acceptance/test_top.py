"""`agentapi top` in a terminal, while workers come and go."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from agentapi import TurnStatus, load_settings
from agentapi.metrics import activity
from orchestrator import Orchestrator
from orchestrator.broker import ask_workers, producer_app
from orchestrator.fleet import ANSWER_TIMEOUT, FleetReader
from orchestrator.stack import Stack
from tests.acceptance.terminal import COMMAND, CTRL_C, Terminal
from tests.faults import until, worker_of

NOWHERE = "redis://127.0.0.1:1/0"
NO_WORKERS = 4
LEFT_THE_SCREEN = "\x1b[?1049l"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=2,
        concurrency=2,
        flower=False,
    ) as running:
        yield running


def top(*arguments: str, redis_url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "top", *arguments],
        env={**os.environ, "AGENTAPI_REDIS_URL": redis_url, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def answered(*arguments: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    """The same, asked again while no worker answers: a busy one may miss a question."""
    while (done := top(*arguments, redis_url=redis_url)).returncode == NO_WORKERS:
        continue
    return done


def error_of(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stderr.splitlines()[-1])["error"]


def test_a_worker_is_killed_while_somebody_watches(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    # It may be repeated, so that another worker runs it again.
    nap = orchestrator.enqueue("tools", '/count_up {"seconds": 300}', conversation_id="top:nap")
    until(lambda: nap.status() is TurnStatus.RUNNING)
    broken = orchestrator.enqueue("faulty", "hi")
    until(lambda: broken.status().ended)
    victim = worker_of(stack, nap.info().worker)
    with Terminal("top", redis_url=stack.redis_url, kind="xterm", columns=160) as terminal:
        terminal.wait_for("workers 2  slots 1/4")
        terminal.wait_for(f"{victim.name}@\\S+ +ready +1/2 +1 count_up")
        terminal.wait_for(rf"{nap.turn_id} +\S+ +tools +count_up +1 +1 +{victim.name}@")
        terminal.wait_for(rf"{broken.turn_id} +[\d:]+ +internal +faulty")
        terminal.press("s")
        terminal.wait_for("sort: worker")
        victim.kill()
        terminal.wait_for("workers 1")
        terminal.wait_for(f"{victim.name}@\\S+ +silent")
        # The other worker has it: in a process of its own, since it has lost one.
        terminal.wait_for(rf"{nap.turn_id} +\S+ +tools +isolated")
        stack.start_worker()
        terminal.wait_for("workers 2")
        terminal.press("p")
        terminal.wait_for(r"\(paused\)")
        terminal.press("q")
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.shown
    assert LEFT_THE_SCREEN in terminal.shown
    nap.cancel()


def test_a_terminal_without_a_cursor(stack: Stack) -> None:
    with Terminal("top", "--interval", "1", redis_url=stack.redis_url, columns=40) as terminal:
        for _ in range(3):
            terminal.wait_for("q quit")
        terminal.press(CTRL_C)
        assert terminal.wait() == 130
    assert "\x1b" not in terminal.shown
    assert max(map(len, terminal.shown.splitlines())) <= 40


def test_one_picture_for_programs(stack: Stack, orchestrator: Orchestrator) -> None:
    done = answered("--once", "--json", redis_url=stack.redis_url)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["slots"] == sum(worker.get("slots", 0) for worker in found["workers"])
    assert {worker["state"] for worker in found["workers"]} <= {"ready", "silent"}
    assert found["turns"]["ready"] == 0
    assert (found["redis_fault"], found["broker_fault"]) == (None, None)
    # Without a terminal there is one picture, without colours.
    plain = answered(redis_url=stack.redis_url)
    assert plain.returncode == 0
    assert re.search("^WORKER ", plain.stdout, re.M)
    assert "\x1b" not in plain.stdout


def test_from_the_fleet_to_a_log_line(stack: Stack, orchestrator: Orchestrator) -> None:
    """The way that docs/guides/operate.md describes."""
    handle = orchestrator.enqueue("faulty", "a secret of the user", conversation_id="top:way")
    until(lambda: handle.status().ended)
    failures = json.loads(top("--once", "--json", redis_url=stack.redis_url).stdout)["failures"]
    assert failures[0]["turn_id"] == handle.turn_id
    code = failures[0]["error"]["code"]
    listed = orchestrator.turns(status="failed", error_code=code).page(1).items
    assert [turn.turn_id for turn in listed] == [handle.turn_id]
    info = handle.info()
    assert (info.status, info.attempt, info.steps) == (TurnStatus.FAILED, 1, 0)
    log = worker_of(stack, info.worker).log

    def ends() -> list[str]:
        lines = log.read_text().splitlines()
        return [each for each in lines if "turn.failed" in each and handle.turn_id in each]

    until(ends)
    [line] = ends()
    assert f"conversation_id=top:way turn_id={handle.turn_id} attempt=1" in line
    assert f"error={code}" in line
    assert "secret" not in line


def test_json_goes_on_until_it_is_ended(stack: Stack) -> None:
    with Terminal("top", "--json", "--interval", "1", redis_url=stack.redis_url) as terminal:
        for _ in range(2):
            terminal.wait_for('"taken_at"')
        terminal.press(CTRL_C)
        assert terminal.wait() == 130
    first = terminal.shown.splitlines()[0]
    assert json.loads(first)["redis_fault"] is None


def test_words_do_not_cross_the_broker(stack: Stack, orchestrator: Orchestrator) -> None:
    secret = "a secret of the user"
    turn = orchestrator.enqueue("slow", secret, conversation_id="top:secret")
    until(lambda: turn.status() is not TurnStatus.QUEUED)
    replies: list[dict[str, Any]] = []
    with closing(producer_app(stack.settings)) as app:
        while not replies:
            replies = ask_workers(app, stack.settings, activity.COMMAND, timeout=ANSWER_TIMEOUT)
    assert secret not in json.dumps(replies)
    turn.cancel()


def test_without_workers(redis_url: str) -> None:
    done = top("--once", redis_url=redis_url, COLUMNS="80")
    assert done.returncode == 4
    assert "workers 0  slots 0/0" in done.stdout
    assert "no worker answers" in done.stderr
    done = top("--once", "--json", redis_url=redis_url)
    assert json.loads(done.stdout)["workers"] == []
    assert (done.returncode, error_of(done)["code"]) == (4, "no_workers")


def test_redis_is_away() -> None:
    done = top("--once", "--json", redis_url=NOWHERE, AGENTAPI_REDIS_TIMEOUT="0.2")
    assert (done.returncode, error_of(done)["code"]) == (4, "store_unavailable")
    assert json.loads(done.stdout)["turns"] is None
    assert "Traceback" not in done.stderr
    with Terminal("top", redis_url=NOWHERE, kind="xterm", columns=120) as terminal:
        terminal.wait_for("Redis at redis://127.0.0.1:1/0 is out of reach")
        terminal.press("q")
        assert terminal.wait() == 0


def test_a_reading_that_fails_ends_the_command(redis_url: str) -> None:
    program = (
        "from orchestrator.fleet import FleetReader\n"
        "FleetReader.read = lambda self, **_: 1 / 0\n"
        "import sys; sys.argv = ['agentapi', 'top']\n"
        "from orchestrator.cli.main import app; app()"
    )
    command = [sys.executable, "-c", program]
    with Terminal(redis_url=redis_url, kind="xterm", command=command) as terminal:
        assert terminal.wait() == 1
    assert "ZeroDivisionError" in terminal.shown
    assert terminal.shown.index(LEFT_THE_SCREEN) < terminal.shown.index("ZeroDivisionError")


def test_a_worker_of_an_older_release(
    stack: Stack, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = FleetReader(load_settings(redis_url=stack.redis_url), orchestrator.store)

    def old(*question: Any, **options: Any) -> list[dict[str, Any]]:
        replies = ask_workers(*question, **options)
        return [{name: {"error": "unknown"}} for reply in replies for name in reply]

    monkeypatch.setattr("orchestrator.fleet.ask_workers", old)
    while not (found := reader.read()).workers:
        continue
    assert {worker.activity for worker in found.workers} == {None}
    reader.close()
