"""What `agentapi doctor` says about a fleet with faults, and which workers do not start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentapi import load_settings
from agentapi.checks.report import COMMAND
from orchestrator.broker import producer_app
from orchestrator.doctor import examine
from orchestrator.stack.processes import free_port
from tests.fakes.server import serving, status
from tests.faults import until

ROOT = str(Path(__file__).parents[2])
CELERY = (sys.executable, "-m", "celery", "-A", "workers", "worker")
AGENTS = """
from agentapi import Agent

plain = Agent(name="plain", provider="offline")
clever = Agent(name="clever", provider="openai:gpt-9")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module of agents."""
    (tmp_path / "shop.py").write_text(AGENTS)
    return tmp_path


def environment(url: str, variables: dict[str, str]) -> dict[str, str]:
    return {
        **os.environ,
        "AGENTAPI_REDIS_URL": url,
        "AGENTAPI_AGENTS": "shop",
        "PYTHONPATH": ROOT,
        **variables,
    }


@contextmanager
def worker(folder: Path, url: str, *options: str, **variables: str) -> Iterator[Path]:
    """A worker process that is killed with its watchdog at the end; yields its log."""
    file = folder / f"{len(list(folder.iterdir()))}.log"
    with file.open("w") as log:
        process = subprocess.Popen(
            [*CELERY, *options],
            env=environment(url, variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        yield file
    finally:
        ours = psutil.Process(process.pid)
        for one in [*ours.children(recursive=True), ours]:
            one.send_signal(signal.SIGKILL)
        process.wait()


def refused(folder: Path, url: str, *options: str, **variables: str) -> str:
    """The last words of a worker that does not start."""
    done = subprocess.run(
        [*CELERY, *options],
        env=environment(url, variables),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "worker.died" not in done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    prefix = "agentapi worker cannot start: "
    assert last.startswith(prefix)
    return last.removeprefix(prefix)


def doctor(folder: Path, url: str, **variables: str) -> dict[str, Any]:
    """Its findings by code."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "doctor", "--json"],
        env=environment(url, {"AGENTAPI_AGENTS": "", **variables}),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=150,
        check=False,
    )
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["ok"] else 1)
    assert said["ok"] == all(finding["level"] != "fail" for finding in said["findings"])
    assert "hunter2" not in done.stdout + done.stderr
    return {finding["code"]: finding for finding in said["findings"]}


def examined(url: str, **settings: Any) -> dict[str, dict[str, str]]:
    """The same in this process, which is faster."""
    found = examine(load_settings(redis_url=url, **settings))
    return {finding.code: finding.to_json() for finding in found}


def answering(url: str) -> Callable[[], list[str]]:
    """The names of workers that answer, each as often as it does."""

    def names() -> list[str]:
        app: Any = producer_app(load_settings(redis_url=url))
        try:
            replies = app.control.broadcast(COMMAND, reply=True, timeout=0.5)
        finally:
            app.close()
        return [name for reply in replies for name in reply]

    return names


def test_without_servers(folder: Path) -> None:
    found = doctor(folder, f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    for code in ("redis.unreachable", "broker.unreachable"):
        assert found[code]["level"] == "fail"
        assert "connection refused" in found[code]["message"]
        assert "idempotency_key" not in found[code]["message"]
        assert found[code]["remedy"].startswith("Start it, or correct AGENTAPI_")


def test_without_workers(folder: Path, redis_url: str) -> None:
    found = doctor(folder, redis_url, AGENTAPI_AGENTS="shopp", AGENTAPI_CONCURENCY="3")
    assert found["workers.none"]["level"] == "fail"
    assert "agentapi worker" in found["workers.none"]["remedy"]
    assert found["agents.import"]["level"] == "fail"
    assert "'shopp', which cannot be imported: No module named" in found["agents.import"]["message"]
    assert "did you mean AGENTAPI_CONCURRENCY?" in found["settings.unknown"]["message"]
    # What a module prints does not end up in the JSON.
    (folder / "loud.py").write_text(f"print('hello')\n{AGENTS}")
    found = doctor(folder, redis_url, AGENTAPI_AGENTS="loud")
    assert found["agents.import"]["message"] == "loud can be imported here: clever, plain"
    found = doctor(folder, redis_url, AGENTAPI_QUEUES="many")
    assert (found["settings.invalid"]["level"], len(found)) == ("fail", 1)
    assert "AGENTAPI_QUEUES" in found["settings.invalid"]["message"]


def test_workers_that_do_not_start(folder: Path, redis_url: str) -> None:
    assert "it would read the queues foo" in refused(folder, redis_url, "-Q", "foo")
    assert "--pool is celery.concurrency.thread" in refused(folder, redis_url, "-P", "threads")
    assert "it has no agents" in refused(folder, redis_url, AGENTAPI_AGENTS="")
    assert "'shopp', which cannot be imported" in refused(
        folder, redis_url, AGENTAPI_AGENTS="shopp"
    )


async def test_a_fleet_with_faults(folder: Path, redis_url: str) -> None:
    names = answering(redis_url)
    async with AsyncExitStack() as running:
        # Closed in the middle of the test.
        web = await running.enter_async_context(AsyncExitStack())
        server = await web.enter_async_context(serving())
        server.will_list(*[status(200, {"data": [{"id": "gpt-5"}]})] * 3)
        key = {"OPENAI_API_KEY": "sk-hunter2", "OPENAI_BASE_URL": f"{server.url}/v1"}
        log = running.enter_context(
            worker(folder, redis_url, "-n", "same@here", **key, AGENTAPI_QUEUE="9")
        )
        # The worker makes the same checks at its start.
        await asyncio.to_thread(until, lambda: "code=providers.model" in log.read_text())
        await asyncio.to_thread(until, lambda: len(names()) == 1)
        assert "check.warn code=settings.unknown" in log.read_text()
        await asyncio.to_thread(_two_of_one_name, folder, redis_url, names)
        await asyncio.to_thread(_another_number_of_queues, folder, redis_url)
        # A wrong base URL, a wrong key, and a server that is away.
        server.will_list(
            status(404, {}), status(401, {"error": {"message": "sk-hunter2 is wrong"}})
        )
        found = await asyncio.to_thread(examined, redis_url)
        assert found["providers.model"]["level"] == "warn"
        assert "/v1/models did not return a list of models" in found["providers.model"]["message"]
        found = await asyncio.to_thread(examined, redis_url)
        assert found["providers.key"]["level"] == "fail"
        assert "answered 401: *** is wrong" in found["providers.key"]["message"]
        address = server.url
        await web.aclose()
        archive = f"sqlite:///{folder / 'archive.db'}"
        found = await asyncio.to_thread(examined, redis_url, archive_url=archive)
        assert "but not at same@here," in found["archive.differs"]["message"]
        assert found["providers.unreachable"]["level"] == "fail"
        assert (
            f"at {address}/v1 cannot be reached: connection refused"
            in (found["providers.unreachable"]["message"])
        )


def _another_number_of_queues(folder: Path, url: str) -> None:
    found = examined(url, queues=16)
    assert (
        "same@here: provider 'openai' does not list the model 'gpt-9'; it lists gpt-5"
        in (found["providers.model"]["message"])
    )
    assert found["agents.known"]["message"] == "clever, plain"
    assert "did you mean AGENTAPI_QUEUES?" in found["settings.unknown"]["message"]
    assert found["queues.disagree"]["level"] == "fail"
    assert "AGENTAPI_QUEUES is 16 here, but 8 at same@here" in found["queues.disagree"]["message"]
    assert "Set AGENTAPI_QUEUES=8" in found["queues.disagree"]["remedy"]
    said = refused(folder, url, AGENTAPI_QUEUES="16")
    assert "AGENTAPI_QUEUES is 16 here, but the workers have 8 queues" in said


def _two_of_one_name(folder: Path, url: str, names: Callable[[], list[str]]) -> None:
    with worker(folder, url, "-n", "same@here", OPENAI_API_KEY="") as log:
        until(lambda: len(names()) == 2)
        found = examined(url)
        assert "2 workers are named same@here" in found["workers.same_name"]["message"]
        # This one has no key.
        assert found["providers.key"]["level"] == "fail"
        assert "OPENAI_API_KEY is not set" in found["providers.key"]["message"]
        assert "(agents: clever)" in found["providers.key"]["message"]
        until(lambda: "code=workers.same_name" in log.read_text())
    until(lambda: len(names()) == 1)
