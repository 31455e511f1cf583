"""The previous release and this one run side by side, as during an upgrade, and lose nothing.

Both have a worker, a gateway and a producer at the same time, in the same conversations. First the
new worker is killed, then the old one is stopped, so that turns change hands in both directions.
"""

from __future__ import annotations

import json
import lzma
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from kombu.exceptions import OperationalError

from agentapi import Settings, TurnStatus, load_settings
from agentapi.redis.keys import ELECTION_KEY
from orchestrator import Orchestrator, TurnHandle
from orchestrator.broker import producer_app
from orchestrator.stack.processes import Child, free_port
from tests.faults import until, watchdogs
from tests.gate import Gate
from tests.upgrade.release import FILES, PARTS, PREVIOUS, STORED, Release, installed

# Two environments are built, and six processes started.
pytestmark = pytest.mark.timeout(600)

CONVERSATIONS = 8

AGENTS = """
import os
import time

from agentapi import Agent, tool


@tool(idempotent=True)
def nap(seconds: float) -> str:
    \"\"\"Sleep.\"\"\"
    time.sleep(seconds)
    return "awake"


@tool(idempotent=True)
def hold(file: str) -> str:
    \"\"\"Wait until a file exists.\"\"\"
    while not os.path.exists(file):
        time.sleep(0.05)
    return "awake"


napper = Agent(name="napper", provider="offline", tools=[nap, hold])
"""

# Prints the turns that it enqueued, each with its status, as JSON.
PRODUCER = """
import json, sys

from orchestrator import Orchestrator

name, count, conversations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Orchestrator() as orchestrator:
    turns = [
        orchestrator.enqueue(
            "napper",
            f"{name} {number}" if number % 3 else '/nap {"seconds": 0.2}',
            conversation_id=f"c:{number % conversations}",
            stream=number % 2 == 0,
        )
        for number in range(count)
    ]
    for turn in turns:
        result = turn.result(timeout=120)
        print(json.dumps([turn.turn_id, turn.status().value, result.text]))
    print(json.dumps(["history", len(orchestrator.history("c:0")), ""]))
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    with ThreadPoolExecutor() as pool:
        made = {
            name: pool.submit(installed, name, sources, tmp_path_factory.mktemp(name))
            for name, sources in (("old", STORED), ("new", None))
        }
    found = {name: future.result() for name, future in made.items()}
    for release in found.values():
        (release.folder / "agents.py").write_text(AGENTS)
        (release.folder / "producer.py").write_text(PRODUCER)
    return found


@dataclass
class Both:
    """What runs of both releases.

    Attributes:
        gateways: The addresses by release.
        workers: The worker processes by release.
    """

    settings: Settings
    variables: dict[str, str]
    releases: dict[str, Release]
    stack: ExitStack
    gateways: dict[str, str] = field(default_factory=dict)
    workers: dict[str, Child] = field(default_factory=dict)

    def start_worker(self, name: str) -> None:
        command = ("celery", "-A", "workers", "worker", "--without-gossip", "--without-mingle")
        child = self.releases[name].start("worker", (*command, "-n", f"{name}@%h"), self.variables)
        self.stack.callback(child.stop)
        self.workers[name] = child
        until(lambda: name in self._answering(), what=f"the {name} worker")

    def start_gateway(self, name: str) -> None:
        port = free_port()
        variables = {**self.variables, "AGENTAPI_GATEWAY_PORT": str(port), "AGENTAPI_AGENTS": ""}
        child = self.releases[name].start("gateway", ("agentapi", "gateway"), variables)
        self.stack.callback(child.stop)
        self.gateways[name] = f"http://127.0.0.1:{port}"
        until(lambda: _ready(self.gateways[name]), what=f"the {name} gateway")

    def _answering(self) -> set[str]:
        app: Any = producer_app(self.settings)
        replies: list[dict[str, Any]] = []
        try:
            replies = app.control.ping(timeout=0.5)
        except (OperationalError, redis.ConnectionError):
            # A connection was lost on the way; whoever waits for workers asks again.
            pass
        finally:
            app.close()
        return {worker.partition("@")[0] for reply in replies for worker in reply}


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=60).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def both(releases: dict[str, Release], redis_url: str) -> Iterator[Both]:
    own: dict[str, Any] = {"lease_ttl": 4, "heartbeat": 0.5, "dispatch_grace": 1}
    variables = {f"AGENTAPI_{name.upper()}": str(value) for name, value in own.items()}
    variables |= {"AGENTAPI_REDIS_URL": redis_url, "AGENTAPI_AGENTS": "agents"}
    variables["AGENTAPI_SHUTDOWN_GRACE"] = "0.2"
    with ExitStack() as stack:
        made = Both(load_settings(redis_url=redis_url, **own), variables, releases, stack)
        try:
            yield made
        except BaseException:
            for release in releases.values():
                for log in release.folder.glob("*.log"):
                    print(log, log.read_text(errors="replace")[-3000:])
            raise


def ask(url: str, number: int) -> str:
    """One response through a gateway; returns its status."""
    with httpx2.Client(base_url=url, timeout=120) as client:
        body = {"model": "napper", "input": f"by HTTP {number}", "stream": number % 2 == 0}
        if not body["stream"]:
            return str(client.post("/v1/responses", json=body).json()["status"])
        with client.stream("POST", "/v1/responses", json=body) as response:
            lines = [line for line in response.iter_lines() if line.startswith("data: {")]
        return str(json.loads(lines[-1].removeprefix("data: "))["response"]["status"])


def held(orchestrator: Orchestrator, gate: Gate, worker: str) -> list[TurnHandle]:
    """Turns that wait at a gate, of which some run in this worker."""
    made = [orchestrator.enqueue("napper", gate.message) for _ in range(11)]

    def some_run_there() -> bool:
        # One more each time: a worker that is slow just now may get none of the first ones.
        made.append(orchestrator.enqueue("napper", gate.message))
        return sum(owner(turn) == worker for turn in made) >= 2

    until(some_run_there, what=f"turns in the {worker} worker")
    return made


def owner(turn: TurnHandle) -> str:
    """The worker that runs a turn, or ran it last."""
    return (turn.info().worker or "").partition("@")[0]


def test_two_releases_lose_no_turn(both: Both, tmp_path: Path) -> None:
    for name in ("old", "new"):
        both.start_worker(name)
        both.start_gateway(name)
    found: dict[str, list[Any]] = {}

    def produce(name: str, count: int) -> None:
        command = ("python", "producer.py", name, str(count), str(CONVERSATIONS))
        done = both.releases[name].run(command, both.variables)
        assert done.returncode == 0, done.stderr
        found[name] = [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(8) as pool:
        load = [pool.submit(produce, name, 40) for name in ("old", "new")]
        answers = [
            pool.submit(ask, url, number) for number in range(8) for url in both.gateways.values()
        ]
        assert {answer.result() for answer in answers} == {"completed"}
        for future in load:
            future.result()

    client = redis.Redis.from_url(both.settings.redis_url, decode_responses=True)

    def leader() -> str:
        return str(client.get(ELECTION_KEY) or "").partition("@")[0]

    with client, Orchestrator(both.settings) as orchestrator:
        # The old release leaves the sweep to the new one, which shares it.
        until(lambda: leader() == "new", what="a sweep by the new release")
        turns = [turn for lines in found.values() for turn in lines[:-1]]
        assert len(turns) == 80
        assert {status for _, status, _ in turns} == {"completed"}
        infos = [orchestrator.turn(turn_id).info() for turn_id, _, _ in turns]
        # Both releases had their part.
        assert {(info.worker or "").partition("@")[0] for info in infos} == {"old", "new"}
        _check_histories(orchestrator)

        gate = Gate(tmp_path / "first")
        taken = held(orchestrator, gate, "new")
        for pid in (*watchdogs(both.workers["new"]), both.workers["new"].pid):
            os.kill(pid, signal.SIGKILL)
        gate.open()
        _completed(taken)
        lost = [info for turn in taken if (info := turn.info()).losses]
        assert lost, "the old release took over from the new one"
        until(lambda: leader() == "old", what="a sweep by the old release")
        assert all((info.worker or "").startswith("old@") for info in lost)

        both.start_worker("new")
        until(lambda: leader() == "new", what="a sweep by the new release")
        gate = Gate(tmp_path / "second")
        handed = held(orchestrator, gate, "old")
        stopping = threading.Thread(target=both.workers["old"].stop)
        stopping.start()
        until(lambda: {owner(turn) for turn in handed} == {"new"}, what="the new worker's turns")
        gate.open()
        _completed(handed)
        stopping.join()
        until(lambda: _ready(both.gateways["old"]), what="the old gateway")
        assert ask(both.gateways["old"], 0) == "completed"


def _completed(turns: list[TurnHandle]) -> None:
    for turn in turns:
        assert "awake" in turn.result(timeout=120).text
        assert turn.status() is TurnStatus.COMPLETED


def _check_histories(orchestrator: Orchestrator) -> None:
    """Each message once, in the order of its producer, whoever ran it."""
    said = []
    for number in range(CONVERSATIONS):
        history = orchestrator.history(f"c:{number}")
        texts = [m["content"] for m in history if m["role"] == "user"]
        said += texts
        for name in ("old", "new"):
            numbers = [int(t.split()[1]) for t in texts if str(t).startswith(f"{name} ")]
            assert numbers == sorted(numbers)
    assert len(said) == 80


def test_the_doctor_sees_two_releases(both: Both, releases: dict[str, Release]) -> None:
    both.start_worker("old")
    # As pip would have installed it under another number.
    package = next(
        (releases["new"].folder / "venv").glob("lib/*/site-packages/agentapi-*.dist-info")
    )
    metadata = package / "METADATA"
    was = metadata.read_text()
    metadata.write_text(was.replace("\nVersion: ", "\nVersion: 99.", 1))
    try:
        both.start_worker("new")
        codes: dict[str, Any] = {}
        while "workers.releases" not in codes:
            # A busy worker may miss the question.
            done = releases["new"].run(("agentapi", "doctor", "--json"), both.variables)
            codes = {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}
    finally:
        metadata.write_text(was)
    assert codes["workers.releases"]["level"] == "warn"
    assert "99." in codes["workers.releases"]["message"]
    assert "releases.differ" not in codes
    assert done.returncode == 0


def test_the_stored_sources_are_those_of_the_commit() -> None:
    with lzma.open(STORED) as stored, tarfile.open(fileobj=stored) as files:
        names = files.getnames()
        commit = files.pax_headers["comment"]
    assert commit == PREVIOUS
    assert {*PARTS, *FILES} <= {name.partition("/")[0] for name in names}
