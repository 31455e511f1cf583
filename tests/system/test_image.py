"""The image: built by the steps of its Dockerfile, and run as deploy/compose.yaml runs it.

No Docker is needed: an overlay on this machine's file system takes the place of the base image, and
namespaces that of the containers.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentapi import Settings, TurnStatus, load_settings
from orchestrator import Orchestrator
from orchestrator.stack.processes import free_port
from tests.deploy.files import ROOT, compose
from tests.deploy.image import DOCKERFILE, Container, Image, Workshop, context_files
from tests.documents.blocks import blocks_of
from tests.faults import until

# The first test builds the image.
pytestmark = pytest.mark.timeout(900)

AGENTS = """
import time

from agentapi import Agent, tool


@tool(idempotent=True)
def nap(seconds: float) -> str:
    \"\"\"Sleep.\"\"\"
    time.sleep(seconds)
    return "awake"


napper = Agent(name="napper", provider="offline", tools=[nap])
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("images") / "files"
    folder.mkdir()
    made = Workshop(folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> Image:
    files = context_files(ROOT, (ROOT / ".dockerignore").read_text())
    return workshop.build(DOCKERFILE.read_text(), "agentapi:local", ROOT, files)


class Runner:
    """Starts containers of the services in deploy/compose.yaml."""

    def __init__(self, workshop: Workshop, image: Image, url: str, agents: Path) -> None:
        self.settings: Settings = load_settings(redis_url=url)
        self._workshop = workshop
        self._image = image
        self._agents = agents
        self.url = url

    def __call__(self, service: str, *command: str, **variables: str) -> Container:
        """Start one.

        Args:
            service: Its name in the file.
            command: In place of the file's.
            variables: Beside those of the file.
        """
        found: dict[str, Any] = compose()["services"][service]
        folders = {str(v).split(":")[-2]: self._agents for v in found.get("volumes", ())}
        own = {name: value for name, value in found["environment"].items() if "$" not in value}
        own |= {"AGENTAPI_REDIS_URL": self.url, **variables}
        for name in ("AGENTAPI_METRICS_PORT", "AGENTAPI_GATEWAY_METRICS_PORT"):
            # All containers share this machine's network.
            if name in own:
                own[name] = str(free_port())
        self.variables = own
        return self._workshop.run(
            self._image,
            service,
            command=command or found.get("command", ()),
            env=own,
            volumes={source: target for target, source in folders.items()},
            tmpfs=[mount.partition(":")[0] for mount in found["tmpfs"]],
            read_only=found["read_only"],
        )


@pytest.fixture
def run(workshop: Workshop, image: Image, redis_url: str, tmp_path: Path) -> Iterator[Runner]:
    (tmp_path / "agents.py").write_text(AGENTS)
    # pytest makes folders that only this user may enter.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o005:
            folder.chmod(0o755)
    yield Runner(workshop, image, redis_url, tmp_path)
    for container in workshop.containers:
        container.kill()


@pytest.fixture
def orchestrator(run: Runner) -> Iterator[Orchestrator]:
    with Orchestrator(run.settings) as running:
        yield running


def events_of(container: Container) -> set[str]:
    """What it has logged: JSON, but for what Celery prints when it gets a signal."""
    lines = [line for line in container.text().splitlines() if line]
    logged = [json.loads(line) for line in lines if not line.startswith("worker: ")]
    return {one.get("event", "") for one in logged}


def nobody_may_write(container: Container) -> bool:
    """Whether the image's own files cannot be changed, even if the file system were writable."""
    found = container.execute("find", "/opt/agentapi", "/usr/local/bin/agentapi-healthy",
                              "-writable", "-not", "-type", "l")  # fmt: skip
    assert found.returncode == 0, found.stderr
    return not found.stdout


def test_a_worker_without_rights_on_a_read_only_tree(
    run: Runner, orchestrator: Orchestrator
) -> None:
    worker = run("worker", AGENTAPI_AGENTS="agents")
    worker.wait_until_healthy()
    assert orchestrator.enqueue("napper", "hello").result(timeout=60).text == "You said: hello"
    status = Path(f"/proc/{worker.first.pid}/status").read_text()
    for line in ("Uid:\t10001\t10001", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    assert status.split("NSpid:")[1].split()[1] == "1"
    for folder in ("/", "/srv/agents", "/opt/agentapi"):
        assert "Read-only file system" in worker.execute("touch", f"{folder}/x").stderr
    assert nobody_may_write(worker)
    assert worker.stop() == 0
    assert {"turn.completed", "fleet.stopping"} <= events_of(worker)


def test_sigterm_hands_a_turn_to_another_container(run: Runner, orchestrator: Orchestrator) -> None:
    first = run("worker", AGENTAPI_AGENTS="agents", AGENTAPI_SHUTDOWN_GRACE="0.5")
    first.wait_until_healthy()
    turn = orchestrator.enqueue("napper", '/nap {"seconds": 5}')
    until(lambda: turn.status() is TurnStatus.RUNNING)
    second = run("worker", AGENTAPI_AGENTS="agents")
    second.wait_until_healthy()
    assert first.stop() == 0
    assert "awake" in turn.result(timeout=60).text
    assert turn.info().losses == 0


def test_a_killed_worker_leaves_its_watchdog_alive_and_its_turn_goes_on(
    run: Runner, orchestrator: Orchestrator
) -> None:
    # With this lease only the watchdog can free the turn within the test's time.
    container = run(
        "worker", AGENTAPI_AGENTS="agents", AGENTAPI_LEASE_TTL="3000", AGENTAPI_HEARTBEAT="900"
    )
    container.wait_until_healthy()
    turn = orchestrator.enqueue("napper", '/nap {"seconds": 10}')
    until(lambda: turn.info().worker is not None)
    first = container.first.pid
    worker, watchdog = container.processes("celery")
    assert watchdog.ppid() == worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    assert "awake" in turn.result(timeout=90).text
    assert turn.info().losses == 1
    assert container.first.pid == first
    container.wait_until_healthy()
    assert container.stop() == 0


def test_a_container_ends_with_a_worker_that_has_no_supervisor(
    run: Runner, orchestrator: Orchestrator
) -> None:
    """The reason for the supervisor: process 1 would end, and the watchdog with it."""
    command = ("celery", "-A", "workers", "worker", "--without-gossip", "--without-mingle")
    container = run("worker", *command, AGENTAPI_AGENTS="agents")
    container.wait_for(" ready.")
    watchdogs = container.processes("celery")[2:]
    assert watchdogs
    [worker] = [p for p in container.first.children() if p.name() != "dumb-init"]
    os.kill(worker.pid, signal.SIGKILL)
    assert container.wait() != 0
    assert not [p for p in watchdogs if p.is_running() and p.status() != "zombie"]
    # So that no turn of it disturbs.
    assert orchestrator.enqueue("napper", "later").status() is TurnStatus.QUEUED


def test_health_is_that_of_the_worker(run: Runner) -> None:
    container = run("worker", AGENTAPI_AGENTS="agents")
    assert not container.healthy
    container.wait_until_healthy()
    [supervisor] = container.first.children()
    # A supervisor that hangs reports nothing more.
    os.kill(supervisor.pid, signal.SIGSTOP)
    container.execute("touch", "--date", "1 minute ago", "/tmp/agentapi-ready")
    assert not container.healthy
    os.kill(supervisor.pid, signal.SIGCONT)
    container.wait_until_healthy()


def test_the_gateway_and_flower(run: Runner) -> None:
    port = str(free_port())
    gateway = run("gateway", AGENTAPI_GATEWAY_PORT=port)
    gateway.wait_until_healthy()
    assert nobody_may_write(gateway)
    metrics = run.variables["AGENTAPI_GATEWAY_METRICS_PORT"]
    fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
    demand = gateway.execute("python", "-c", fetch, f"http://127.0.0.1:{metrics}/demand")
    assert json.loads(demand.stdout)["turns"] == 0
    assert gateway.stop() == 0
    assert "gateway.stopping" in events_of(gateway)
    flower = run("flower", FLOWER_BASIC_AUTH="me:secret")
    flower.wait_until_healthy()
    assert "secret" not in flower.text()
    flower.stop()


def test_the_command_line(run: Runner) -> None:
    container = run("cli", "agentapi", "keys", "create", "acme")
    assert container.wait() == 0
    assert container.text().strip().splitlines()[-1].startswith("ak-")


def test_an_image_with_your_agents(
    workshop: Workshop, image: Image, run: Runner, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    [block] = [b for b in blocks_of("docs/guides/deploy.md") if b.language == "dockerfile"]
    (tmp_path / "requirements.txt").write_text("idna\n")
    yours = workshop.build(block.code, "yours", tmp_path, ["requirements.txt", "agents.py"])
    assert yours.user == image.user
    container = workshop.run(
        yours, "yours", env={"AGENTAPI_REDIS_URL": run.url}, tmpfs=["/tmp"], read_only=True
    )
    container.wait_until_healthy()
    assert orchestrator.enqueue("napper", "hello").result(timeout=60).text == "You said: hello"
    assert container.stop() == 0
