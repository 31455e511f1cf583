"""Trace contexts, ids of attempts, and how a process comes to its traces."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentapi.errors import ConfigurationError
from agentapi.tracing import NO_SPAN, NewSpan, NoTraces, install, set_up, traces
from agentapi.tracing.context import TraceContext, attempt_of, context_from, trace_id_of
from agentapi.tracing.installed import _installed
from agentapi.tracing.otel import OpenTelemetryTraces

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _own_traces() -> Iterator[None]:
    before = vars(_installed).copy()
    yield
    vars(_installed).update(before)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def test_a_context_is_read_as_it_is_written() -> None:
    found = context_from(f"{HEADER} vendor=1,other=2")
    assert found is not None
    assert found.text == f"{HEADER} vendor=1,other=2"
    assert context_from(HEADER) == TraceContext(
        trace_id=0x0AF7651916CD43DD8448EB211C80319C, span_id=0xB7AD6B7169203331, flags=1
    )
    # Of a newer version of the standard, which may have more.
    assert context_from(f"01{HEADER[2:]}-more") == context_from(HEADER)


@pytest.mark.parametrize(
    "text",
    [
        *(
            None,
            "",
            "00",
            "nonsense",
            HEADER.upper(),
            HEADER[:-1],
            f"ff{HEADER[2:]}",
            f"{HEADER}\n",
        ),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        f"{HEADER} läuft",
    ],
)
def test_what_is_no_context_is_none(text: str | None) -> None:
    assert context_from(text) is None


def test_a_state_that_is_too_long_is_left_out() -> None:
    found = context_from(f"{HEADER} a={'b' * 600}")
    assert found is not None
    assert found.state == ""


def test_an_attempt_has_the_same_span_wherever_it_is_worked_out() -> None:
    first, second = attempt_of("t", 1, HEADER), attempt_of("t", 2, HEADER)
    assert first == attempt_of("t", 1, HEADER)
    assert first.span_id != second.span_id
    assert first.trace_id == second.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert attempt_of("t", 1, None).trace_id == trace_id_of("t") != trace_id_of("u")
    assert attempt_of("t", 1, "broken") == attempt_of("t", 1, None)
    assert attempt_of("t", 1, HEADER.replace("-01", "-00")).flags == 0


def test_chosen_ids_are_for_our_spans_only(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    made = OpenTelemetryTraces(provider, content=False)
    own = attempt_of("t", 1, None)
    first = made.start(NewSpan(name="a", own=own, links=[attempt_of("t", 7, HEADER)]))
    with first.current():
        made.start(NewSpan(name="b")).end()
        provider.get_tracer("theirs").start_span("c").end()
    first.end()
    first.end()
    b, c, a = exporter.get_finished_spans()
    assert first.context is not None
    assert (first.context.trace_id, first.context.span_id) == (own.trace_id, own.span_id)
    assert a.context is not None
    assert (a.context.span_id, a.parent) == (own.span_id, None)
    assert [link.context.span_id for link in a.links] == [attempt_of("t", 7, None).span_id]
    for inner in (b, c):
        assert inner.parent is not None
        assert inner.context is not None
        assert inner.parent.span_id == own.span_id
        assert inner.context.span_id != own.span_id


def test_what_is_not_sampled_is_not_recorded_and_says_so_to_others(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    made = OpenTelemetryTraces(provider, content=False)
    parent = context_from(HEADER.replace("-01", "-00"))
    span = made.start(NewSpan(name="a", parent=parent))
    assert not span.on
    assert span.context is not None
    assert span.context.flags == 0
    span.set({"a": 1})
    span.fail("b")
    span.end()
    assert not exporter.get_finished_spans()


class _Faulty(SpanProcessor):
    """A user's processor with a fault."""

    def on_start(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError

    def on_end(self, *_: object) -> None:
        raise ZeroDivisionError


class _FaultyAtEnd(_Faulty):
    def on_start(self, *_: object, **__: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("faulty", [_Faulty, _FaultyAtEnd])
def test_faults_of_a_users_processor_disturb_nobody(faulty: type[_Faulty]) -> None:
    provider = TracerProvider()
    provider.add_span_processor(faulty())
    made = OpenTelemetryTraces(provider, content=False)
    span = made.start(NewSpan(name="a"))
    with span.current():
        span.set({"a": 1})
    span.end()
    made.close(1)


def test_without_traces_nothing_is_started() -> None:
    install(NoTraces())
    span = traces().start(NewSpan(name="a"))
    assert span is NO_SPAN
    with span.current(), traces().remote(attempt_of("t", 1, None)):
        span.set({})
        span.fail("x")
        span.enter()
    span.end()


def test_the_setting_can_turn_traces_off(provider: TracerProvider) -> None:
    install(OpenTelemetryTraces(provider, content=False))
    set_up(None, content=True, service="x")
    assert traces().on
    set_up(False, content=True, service="x")
    assert not traces().on


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only by 'http/protobuf'"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "supports 'otlp' and 'none'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "is not valid"),
    ],
)
def test_variables_that_are_not_supported_are_errors(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    install(NoTraces())
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=expected):
        set_up(True, content=False, service="x")


def test_no_exporter_is_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    set_up(True, content=False, service="x")
    assert not traces().on


PROGRAM = """
    import sys
    from agentapi import Agent
    from orchestrator import Orchestrator
    orchestrator = Orchestrator.eager([Agent(name="a", provider="offline")])
    assert "agentapi.tracing.otel" not in sys.modules
    orchestrator.enqueue("a", "before").result(10)

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    orchestrator.enqueue("a", "after").result(10)
    orchestrator.close()
    print(*[span.name for span in exporter.get_finished_spans()], sep=",")
"""


def test_a_provider_that_a_program_sets_is_used_from_then_on() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "enqueue a,chat offline-1,invoke_agent a"
