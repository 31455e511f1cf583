"""Traces of real worker processes and a gateway, as a collector receives them."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from agentapi.tracing import install
from agentapi.tracing.installed import traces
from agentapi.tracing.otel import OpenTelemetryTraces
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.collector import Collector, Received, collecting
from tests.faults import kill, paused, until, worker_of

SECRET: Final = "larkspur"
"""In everything that somebody says here; it must be in no trace."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    made = Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.traced",),
        workers=2,
        flower=False,
        env=collector.env(),
        # A worker is silent for long enough only if it is dead or paused.
        lease_ttl=6,
        heartbeat=0.5,
        dispatch_grace=1,
    )
    with made:
        yield made


@pytest.fixture
def provider(collector: Collector) -> Iterator[TracerProvider]:
    """That of a program that traces itself."""
    made = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces")
    made.add_span_processor(SimpleSpanProcessor(exporter))
    before = traces()
    install(OpenTelemetryTraces(made, content=False))
    yield made
    install(before)
    made.shutdown()


@pytest.fixture
def orchestrator(stack: Stack, provider: TracerProvider) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running


def test_a_turn_that_delegates_waits_and_loses_a_worker_is_one_picture(
    stack: Stack, orchestrator: Orchestrator, provider: TracerProvider, collector: Collector
) -> None:
    calls = {
        "scout": {"message": f'/look_up {{"word": "{SECRET}"}}'},
        "sign": {"paper": SECRET},
        "dig": {},
        "burn": {"paper": SECRET},
    }
    message = "\n".join(f"/{tool} {orjson.dumps(args).decode()}" for tool, args in calls.items())
    with provider.get_tracer("shop").start_as_current_span("checkout"):
        turn = orchestrator.enqueue("boss", message, conversation_id="user:1")
    # Its first spans have left the worker before it dies.
    collector.wait_for("execute_tool scout")
    kill(stack, worker_of(stack, turn.info().worker))
    until(lambda: len(turn.pending()) == 1 and turn.info().parks == 2, 150, "the approval")
    [asked] = turn.pending()
    # Exported, although the turn waits: its attempts so far have ended.
    collector.wait_for("invoke_agent boss", 3, agentapi_turn_id=turn.turn_id)
    waiting = time.time_ns()
    turn.approve(asked.call_id, by=SECRET)
    assert SECRET in turn.result(150).text
    stack.start_worker()

    attempts = collector.wait_for("invoke_agent boss", 4, agentapi_turn_id=turn.turn_id)
    collector.wait_for("invoke_agent scout")
    spans = list(collector.spans)
    received = {span.id: span for span in spans}
    assert len(spans) == len(received)
    # One trace, with a parent for each span but the caller's own.
    [checkout] = collector.named("checkout")
    assert {span.trace for span in received.values()} == {checkout.trace}
    assert {span.name for span in received.values() if span.parent not in received} == {"checkout"}
    [enqueued] = collector.named("enqueue boss")
    assert (enqueued.parent, enqueued.kind, enqueued.service) == (checkout.id, "producer", "shop")
    assert enqueued.attributes["agentapi.turn.created"]
    assert {span.parent for span in attempts} == {enqueued.id}
    check_attempts(attempts)
    check_work(collector, attempts, turn.turn_id)
    # A turn that waits has no span open.
    others = [span for span in received.values() if span is not checkout]
    assert not [span.name for span in others if span.began < waiting < span.ended]
    assert SECRET.encode() not in collector.content


def check_attempts(attempts: Sequence[Received]) -> None:
    """Each attempt continues the one before, and says why."""
    assert [span.attributes["agentapi.attempt"] for span in attempts] == [1, 2, 3, 4]
    assert [span.links for span in attempts] == [(), *((span.id,) for span in attempts[:3])]
    assert [span.outcome for span in attempts] == ["lost", "parked", "parked", "completed"]
    assert [span.failed for span in attempts] == [True, False, False, False]
    causes = [span.attributes.get("agentapi.cause") for span in attempts]
    assert causes == [None, "lease_expired", "children", "approval"]
    assert attempts[0].attributes["agentapi.reported_by"] == "successor"
    assert attempts[0].attributes["agentapi.worker"] != attempts[1].attributes["agentapi.worker"]
    assert all(span.began < span.ended for span in attempts)


def check_work(collector: Collector, attempts: Sequence[Received], turn_id: str) -> None:
    """What each worker did belongs to its attempt, and the child to the attempt that waits."""
    first, second, _, last = (span.id for span in attempts)

    def parents(name: str) -> list[str]:
        return [span.parent for span in collector.named(name)]

    assert parents("execute_tool scout") == [first, second]
    assert parents("execute_tool dig") == [second]
    assert parents("execute_tool sign") == [last]
    [delegated], [child] = collector.named("enqueue scout"), collector.named("invoke_agent scout")
    assert (delegated.parent, child.parent) == (second, delegated.id)
    assert child.attributes["agentapi.turn.parent"] == turn_id
    assert sorted(parents("chat offline-1")) == sorted([first, last, child.id, child.id])
    burnt = collector.named("execute_tool burn")[0]
    assert burnt.failed
    assert burnt.attributes["error.type"] == "RuntimeError"


def test_the_attempt_of_a_worker_that_lost_its_lease_says_so(
    stack: Stack, orchestrator: Orchestrator, collector: Collector
) -> None:
    stack.wait_for_workers(2)
    turn = orchestrator.enqueue("boss", "/dig {}", conversation_id="user:2")
    until(lambda: turn.info().steps == 1, 150, "the call of the tool")
    with paused(worker_of(stack, turn.info().worker)):
        turn.result(150)
    found = collector.wait_for("invoke_agent boss", 3, agentapi_turn_id=turn.turn_id)
    [fenced] = [span for span in found if span.attributes.get("agentapi.fenced")]
    [reported] = [span for span in found if "agentapi.reported_by" in span.attributes]
    [done] = [span for span in found if span.outcome == "completed"]
    assert fenced.failed
    assert fenced.outcome == "lost"
    # Two reports of the same attempt: its worker's own, and that of the worker that took over.
    assert fenced.id == reported.id
    assert done.links == (fenced.id,)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[Stack, Collector]]:
    """Processes that export only when they end."""
    with collecting() as collector:
        made = Stack(
            tmp_path,
            agents=("tests.acceptance.traced",),
            workers=1,
            flower=False,
            gateway=True,
            env=collector.env(delay=3_600_000),
        )
        with made:
            yield made, collector


def test_processes_export_what_they_have_when_they_are_stopped(
    silent: tuple[Stack, Collector],
) -> None:
    stack, collector = silent
    request = urllib.request.Request(
        f"{stack.gateway_url}/v1/responses",
        orjson.dumps({"model": "scout", "input": SECRET}),
        {
            "Content-Type": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate": "shop=7",
        },
    )
    with urllib.request.urlopen(request, timeout=150) as response:
        assert SECRET in response.read().decode()
    assert not collector.spans
    stack.stop()
    by_name: dict[str, Received] = {span.name: span for span in collector.spans}
    assert set(by_name) == {"enqueue scout", "invoke_agent scout", "chat offline-1"}
    enqueued, attempt = by_name["enqueue scout"], by_name["invoke_agent scout"]
    assert {span.trace for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert (enqueued.parent, enqueued.service) == ("b7ad6b7169203331", "agentapi-gateway")
    assert (attempt.parent, attempt.service) == (enqueued.id, "agentapi-worker")
    assert by_name["chat offline-1"].parent == attempt.id
    assert SECRET.encode() not in collector.content
