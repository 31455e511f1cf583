"""Spans of eager turns and of agents in the caller's process; collectors that are away."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from agentapi import Agent, register_provider, tool
from agentapi.errors import ProviderUnavailable, TurnFailed
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider
from agentapi.tracing import NewSpan, install, set_up, traces
from agentapi.tracing.context import trace_id_of
from agentapi.tracing.installed import _installed
from agentapi.tracing.otel import OpenTelemetryTraces
from agentapi.turns import NewTurn
from orchestrator import AsyncOrchestrator, Orchestrator

SECRET = "larkspur"


@pytest.fixture(autouse=True)
def _own_traces() -> Iterator[None]:
    before = vars(_installed).copy()
    yield
    vars(_installed).update(before)


class Recorded:
    """A provider in memory."""

    def __init__(self, *, content: bool = False, ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        install(OpenTelemetryTraces(self.provider, content=content))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@tool
def echo(text: str) -> str:
    """Say it back."""
    return f"{text}!"


parrot = Agent(name="parrot", system_prompt=f"Be a {SECRET}.", provider="offline", tools=[echo])
keeper = Agent(name="keeper", provider="offline", tools=[parrot.as_tool()])
MESSAGE = f'/echo {{"text": "{SECRET}"}}'


def test_content_is_exported_only_with_the_setting() -> None:
    for content in (False, True):
        recorded = Recorded(content=content)
        with Orchestrator.eager([parrot]) as orchestrator:
            orchestrator.enqueue("parrot", MESSAGE, stream=True).result(10)
        said = "".join(span.to_json() for span in recorded.spans.values())
        assert (SECRET in said) == content
    first, last = [
        span.attributes or {}
        for span in recorded.exporter.get_finished_spans()
        if span.name == "chat offline-1"
    ]
    assert orjson.loads(str(first["gen_ai.system_instructions"]))[0]["content"].endswith(
        f"{SECRET}."
    )
    [asked] = orjson.loads(str(first["gen_ai.input.messages"]))
    assert asked == {"role": "user", "parts": [{"type": "text", "content": MESSAGE}]}
    [called] = orjson.loads(str(first["gen_ai.output.messages"]))
    assert called["finish_reason"] == "tool_calls"
    assert called["parts"][0]["arguments"] == {"text": SECRET}
    assert orjson.loads(str(last["gen_ai.input.messages"]))[-1]["role"] == "tool"
    tool_call = recorded.spans["execute_tool echo"].attributes or {}
    assert tool_call["gen_ai.tool.call.arguments"] == f'{{"text":"{SECRET}"}}'
    assert tool_call["gen_ai.tool.call.result"] == f"{SECRET}!"


def test_spans_have_the_attributes_of_the_conventions() -> None:
    recorded = Recorded()
    with Orchestrator.eager([parrot]) as orchestrator:
        turn = orchestrator.enqueue("parrot", "hello", conversation_id="user:1", stream=True)
        turn.result(10)
    chat, attempt = recorded.spans["chat offline-1"], recorded.spans["invoke_agent parrot"]
    assert chat.attributes is not None
    assert attempt.attributes is not None
    ids = {
        "gen_ai.conversation.id": "user:1",
        "agentapi.turn.id": turn.turn_id,
        "agentapi.attempt": 1,
    }
    assert chat.attributes["gen_ai.conversation.id"] == "user:1"
    assert ids.items() <= attempt.attributes.items()
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.provider.name"] == "offline"
    assert chat.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    for name in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
        assert chat.attributes[name] == attempt.attributes[name]
    assert float(chat.attributes["gen_ai.response.time_to_first_chunk"]) > 0  # type: ignore[arg-type]
    assert attempt.attributes["session.id"] == "user:1"
    assert attempt.attributes["agentapi.outcome"] == "completed"


def test_a_turn_is_sampled_as_a_whole() -> None:
    recorded = Recorded(ratio=0.5)
    names: dict[int, set[str]] = {}
    with Orchestrator.eager([parrot, keeper]) as orchestrator:
        for _ in range(20):
            orchestrator.enqueue("keeper", '/parrot {"message": "hello"}').result(10)
    for span in recorded.exporter.get_finished_spans():
        assert span.context is not None
        names.setdefault(span.context.trace_id, set()).add(span.name)
    assert 0 < len(names) < 20
    whole = {"enqueue keeper", "invoke_agent keeper", "execute_tool parrot", "enqueue parrot"}
    assert all(found >= {*whole, "invoke_agent parrot"} for found in names.values())


def test_turns_of_a_producer_without_traces_have_a_trace_of_their_own() -> None:
    recorded = Recorded()
    with Orchestrator.eager([parrot, keeper]) as orchestrator:
        store, enqueue = orchestrator.store, orchestrator.store.enqueue
        # As another program, or an older release, would have stored it.
        store.enqueue = lambda turns: enqueue([_without_trace(t) for t in turns])  # type: ignore[method-assign]
        turn = orchestrator.enqueue("keeper", '/parrot {"message": "hello"}')
        turn.result(10)
    found = recorded.exporter.get_finished_spans()
    mine = [span for span in found if span.name == "invoke_agent keeper"]
    assert [span.parent for span in mine] == [None, None]
    assert {span.context.trace_id for span in mine if span.context} == {trace_id_of(turn.turn_id)}
    child = recorded.spans["enqueue parrot"]
    assert child.context is not None
    assert child.context.trace_id == trace_id_of(turn.turn_id)
    assert [link.context.span_id for link in child.links] == [
        span.context.span_id for span in mine[:1] if span.context
    ]


def _without_trace(turn: NewTurn) -> NewTurn:
    return replace(turn, trace=None)


async def test_the_current_span_of_an_async_program_is_the_parent() -> None:
    recorded = Recorded()
    async with AsyncOrchestrator.eager([parrot]) as orchestrator:
        with recorded.provider.get_tracer("shop").start_as_current_span("checkout") as checkout:
            turn = await orchestrator.enqueue("parrot", "hello")
        await turn.result(10)
    parent = recorded.spans["enqueue parrot"].parent
    assert parent is not None
    assert parent.span_id == checkout.get_span_context().span_id


class Broken(OfflineProvider):
    """Fails, with a text that quotes the user."""

    name = "unlucky"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        raise ProviderUnavailable(SECRET, provider="unlucky", status=503)


def test_a_failed_turn_and_its_model_call_say_so_without_the_text() -> None:
    register_provider("unlucky", Broken)
    agent = Agent(name="unlucky", provider="unlucky", patience=0)
    recorded = Recorded()
    with Orchestrator.eager([agent], provider_max_retries=0) as orchestrator:
        turn = orchestrator.enqueue("unlucky", "hello")
        with pytest.raises(TurnFailed):
            turn.result(10)
    for name in ("chat offline-1", "invoke_agent unlucky"):
        span = recorded.spans[name]
        assert not span.status.is_ok
        assert span.status.description is None
        assert (span.attributes or {})["error.type"] == "provider_unavailable"
        assert not span.events
        assert SECRET not in span.to_json()


async def test_an_agent_in_the_callers_process_has_spans_too() -> None:
    recorded = Recorded()
    await keeper.run(f'/parrot {{"message": "{SECRET}"}}')
    spans = recorded.spans
    outer, inner = spans["invoke_agent keeper"], spans["invoke_agent parrot"]
    assert outer.context is not None
    assert inner.parent is not None
    assert (outer.parent, inner.parent.span_id) == (None, outer.context.span_id)
    assert SECRET not in "".join(span.to_json() for span in spans.values())


def test_a_collector_that_is_away_delays_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    # Accepts connections and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        set_up(True, content=False, service="x")
        with Orchestrator.eager([parrot]) as orchestrator:
            for _ in range(5):
                orchestrator.enqueue("parrot", MESSAGE).result(10)
            traces().start(NewSpan(name="last")).end()
            began = time.monotonic()
            traces().close(0.2)
        # Given up on long before the exporter itself would.
        assert time.monotonic() - began < 8
