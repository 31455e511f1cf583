"""A real Valkey for the whole run, and settings for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings

from agentapi import Settings, load_settings
from orchestrator.gateway.settings import GatewaySettings, load_gateway_settings
from orchestrator.stack import processes, start_valkey
from orchestrator.stack.cluster import Cluster
from tools.postgres import Postgres, postgres

pytest_plugins = ["pytester"]

# `nohup` and background jobs of shells ignore these signals, and processes inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The duration of an example depends on how busy the machine is.
settings.register_profile(
    "tests", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


def _share_ports(worker: str, shares: int = 8) -> None:
    """Give each process of a parallel run its own ports. Otherwise one process could take a port
    that another one has found free but not used yet."""
    first, end = processes._FIRST_PORT, processes._first_of_connections()
    size = (end - first) // shares
    first += int(worker.removeprefix("gw")) % shares * size
    mine = {"_FIRST_PORT": first, "_first_of_connections": lambda: first + size}
    vars(processes).update(mine)


if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _share_ports(worker)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--whole-cluster",
        action="store_true",
        help="run the whole conformance suite on a cluster, not only what crosses slots",
    )


LONG = (
    "acceptance/test_benchmarks.py",
    "acceptance",
    "chaos",
    "soak",
    "documents",
    "faultpoints",
    "upgrade",
    "gateway",
    "property",
)
"""Files and folders with the slowest tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest tests first, so that all processes of a parallel run end together."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((n for n, long in enumerate(LONG) if path.startswith(long)), len(LONG))

    items.sort(key=place)
    for item in items:
        # Each of these runs many examples.
        if item.path.parent.name == "property" and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


UNMEASURED = (
    "acceptance/test_benchmarks.py",
    "chaos",
    "documents",
    "faultpoints",
    "fuzz",
    "soak",
    "upgrade",
)
"""Files and folders whose processes run without coverage.

They take long, coverage takes a third of their time, and other tests cover the same code.
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Start the processes of these tests, and of the fixtures they set up, without coverage."""
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    with pytest.MonkeyPatch.context() as patch:
        if path.startswith(UNMEASURED):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """Tests see the default settings, not the developer's. Without keys, no live model is
    called."""
    for name in list(os.environ):
        if name.startswith("AGENTAPI_") or name.endswith("_API_KEY"):
            del os.environ[name]


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that runs during the whole test run."""
    child, url = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield url
    child.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL for the whole test run. A test that stops it must start it again."""
    with postgres(password="pass-word", options=("fsync=off",)) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """The URL of a new database."""
    return f"postgresql://{postgres_server.fresh()}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries, each with a replica, for the whole test run. Tests must not kill them."""
    nodes = Cluster(tmp_path_factory.mktemp("cluster"))
    yield nodes
    nodes.stop()


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The URL of the server, emptied for this test."""
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    client.close()
    return valkey_url


@pytest.fixture
def cluster_url(cluster: Cluster) -> str:
    """The URL of the cluster, emptied for this test."""
    cluster.empty()
    return cluster.url


@pytest.fixture
def settings_for(redis_url: str, tmp_path: Path) -> Callable[..., Settings]:
    """Make settings for the emptied server."""

    def make(**overrides: Any) -> Settings:
        return load_settings(redis_url=redis_url, **overrides)

    return make


@pytest.fixture
def gateway_settings_for(redis_url: str, tmp_path: Path) -> Callable[..., GatewaySettings]:
    """Make a gateway's settings for the emptied server."""

    def make(**overrides: Any) -> GatewaySettings:
        return load_gateway_settings(redis_url=redis_url, **overrides)

    return make
