"""Metrics of real worker processes and a gateway."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentapi.metrics.catalog import CATALOG
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from orchestrator.stack.processes import free_port
from tests.faults import until
from tests.gate import Gate

SECRET: Final = "nightingale"
"""What somebody says; it must be in no metric."""


class Served(NamedTuple):
    stack: Stack
    worker: int
    gateway: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Two: that of the second worker is the next one.
    worker, gateway = free_port(2), free_port()
    stack = Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=1,
        flower=False,
        gateway=True,
        heartbeat=0.5,
        dispatch_grace=1,
        metrics_port=worker,
        gateway_metrics_port=gateway,
    )
    with stack:
        yield Served(stack, worker, gateway)


@pytest.fixture
def orchestrator(served: Served) -> Iterator[Orchestrator]:
    with Orchestrator(served.stack.settings) as running:
        yield running


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=150) as response:
        text = response.read().decode()
    assert SECRET not in text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(port: int, name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels."""
    return sum(
        number
        for (found, pairs), number in scrape(port).items()
        if found == name and set(labels.items()) <= pairs
    )


def test_a_worker_counts_what_a_turn_did(served: Served, orchestrator: Orchestrator) -> None:
    message = '/nap {"seconds": 0.01}'
    turn = orchestrator.enqueue("tools", message, conversation_id=f"user:{SECRET}", stream=True)
    turn.result(150)
    port = served.worker
    until(
        lambda: value(port, "agentapi_turns_ended_total", status="completed", agent="tools") == 1,
        what="the count of the turn",
    )
    assert value(port, "agentapi_attempts_total", cause="first") == 1
    assert value(port, "agentapi_turn_dispatch_wait_seconds_count") == 1
    assert value(port, "agentapi_turn_inbox_wait_seconds_count", agent="tools") == 1
    assert value(port, "agentapi_turn_duration_seconds_count", status="completed") == 1
    assert value(port, "agentapi_model_calls_total", provider="offline", outcome="ok") == 2
    assert value(port, "agentapi_model_call_duration_seconds_count", provider="offline") == 2
    assert value(port, "agentapi_tokens_total", kind="input") > 0
    assert value(port, "agentapi_tool_calls_total", tool="nap", outcome="ok") == 1
    assert value(port, "agentapi_redis_script_duration_seconds_count", script="claim") >= 1
    assert value(port, "agentapi_turn_slots") == served.stack.settings.concurrency
    until(lambda: value(port, "agentapi_turns_in_flight") == 0)
    until(lambda: value(port, "agentapi_event_loop_lag_seconds_count") > 0, what="a tick")


def test_the_gateway_counts_requests_and_shows_the_fleet(
    served: Served, orchestrator: Orchestrator
) -> None:
    turn = orchestrator.enqueue("tools", '/nap {"seconds": 600}')
    url, port = served.stack.gateway_url, served.gateway
    with urllib.request.urlopen(f"{url}/v1/models", timeout=150) as response:
        assert response.status == 200
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{url}/{SECRET}", timeout=150)
    # A request is counted after its answer.
    counted = "agentapi_gateway_requests_total"
    until(lambda: value(port, counted, route="/v1/models", code="2xx") >= 1)
    until(lambda: value(port, counted, code="4xx") == 1)
    assert value(port, "agentapi_store_up") == 1
    until(lambda: value(port, "agentapi_turns_running") == 1, what="a running turn")
    assert value(port, "agentapi_turns_ready") == 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/demand", timeout=150) as response:
        demand = json.load(response)
    assert (demand["turns"], demand["turns_ready"], demand["turns_running"]) == (1, 0, 1)
    turn.cancel()
    until(lambda: value(port, "agentapi_turns_running") == 0, what="the end of the turn")


def test_the_gauges_of_the_fleet_come_from_the_gateway_only(served: Served) -> None:
    names = {name for name, _ in scrape(served.worker)}
    assert "agentapi_turns_ready" not in names
    assert "agentapi_build_info" in names


def test_a_turn_that_runs_alone_is_counted_by_its_worker(
    served: Served, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    stack, before = served.stack, served.worker
    gate = Gate(tmp_path / "gate")
    turn = orchestrator.enqueue("tools", gate.message)
    until(lambda: turn.info().worker is not None, what="the claim")
    [worker] = stack.workers
    worker.kill()
    stack.workers.remove(worker)
    stack.start_worker()
    gate.open()
    # Each worker of the machine has a port of its own.
    port = before + 1
    turn.result(150)
    assert turn.info().losses == 1
    until(
        lambda: value(port, "agentapi_turns_ended_total", agent="tools", status="completed") >= 1,
        what="the count of the turn that ran in a process of its own",
    )
    assert value(port, "agentapi_attempts_total", cause="lease_expired") == 1
    assert value(port, "agentapi_tool_calls_total", tool="hold") == 1


def test_every_exported_metric_is_in_the_catalog(served: Served) -> None:
    known = {metric.name for metric in CATALOG}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_count", "_sum")}
    exported = {name for name, _ in scrape(served.gateway) if name.startswith("agentapi_")}
    assert exported <= known
