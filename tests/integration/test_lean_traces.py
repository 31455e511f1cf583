"""What a collector gets from the lean tracer, and when the SDK's is used instead."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WrittenSpan
from opentelemetry.trace import SpanContext, StatusCode

from agentapi.tracing import Kind, NewSpan, NoTraces, install, set_up, traces
from agentapi.tracing.context import attempt_of, context_from
from agentapi.tracing.installed import _installed
from agentapi.tracing.lean import LeanTracer
from tests.collector import Collector, collecting


@pytest.fixture(autouse=True)
def _own_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = vars(_installed).copy()
    install(NoTraces())
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    yield
    traces().close(5)
    vars(_installed).update(before)


def test_requests_have_the_resource_the_scope_and_all_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=blue")
    with collecting() as collector:
        _set_up(monkeypatch, collector, "shop")
        for number in range(700):
            traces().start(NewSpan(name="a", attributes={"number": number})).end()
        traces().close(60)
        numbers = {span.attributes["number"] for span in collector.named("a")}
        requests = list(map(ExportTraceServiceRequest.FromString, collector.bodies))
    assert numbers == set(range(700))
    assert len(requests) > 1
    for request in requests:
        [group] = request.resource_spans
        found = {pair.key: pair.value.string_value for pair in group.resource.attributes}
        assert (found["service.name"], found["team"]) == ("shop", "blue")
        assert found["telemetry.sdk.name"] == "opentelemetry"
        [of_scope] = group.scope_spans
        assert of_scope.scope.name == "agentapi"


def test_what_users_do_with_the_current_span_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        _set_up(monkeypatch, collector, "x")
        span = traces().start(NewSpan(name="a", kind=Kind.CLIENT, own=attempt_of("t", 1, None)))
        with span.current():
            current = trace.get_current_span()
            current.set_attribute("mine", "yes")
            current.add_event("happened", {"how": "well"})
            current.record_exception(KeyError("x"))
            current.add_link(SpanContext(1, 2, is_remote=True), {"why": "so"})
            current.update_name("b")
            current.set_status(StatusCode.OK)
            current.set_status(StatusCode.ERROR, "too late")
        span.end()
        current.set_attribute("after", "the end")
        current.end()
        traces().close(60)
    [request] = map(ExportTraceServiceRequest.FromString, collector.bodies)
    [found] = request.resource_spans[0].scope_spans[0].spans
    assert (found.name, found.kind) == ("b", WrittenSpan.SPAN_KIND_CLIENT)
    assert [pair.key for pair in found.attributes] == ["mine"]
    assert [event.name for event in found.events] == ["happened", "exception"]
    assert found.events[1].attributes[0].value.string_value == "KeyError"
    assert [pair.key for pair in found.links[0].attributes] == ["why"]
    assert found.status.code == 1
    assert found.span_id.hex() == f"{attempt_of('t', 1, None).span_id:016x}"


def test_spans_below_a_span_are_of_its_trace_and_point_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 a=1"
    with collecting() as collector:
        _set_up(monkeypatch, collector, "x")
        outer = traces().start(NewSpan(name="outer", parent=context_from(parent)))
        with outer.current():
            inner = traces().start(NewSpan(name="inner"))
        for span in (inner, outer):
            span.fail("broken")
            span.end()
        traces().close(60)
    assert outer.context is not None
    assert outer.context.state == "a=1"
    [above], [below] = collector.named("outer"), collector.named("inner")
    assert (above.parent, below.parent) == ("b7ad6b7169203331", above.id)
    assert above.trace == below.trace == "0af7651916cd43dd8448eb211c80319c"
    assert (above.failed, below.failed) == (True, True)
    assert below.attributes == {"error.type": "broken"}


def _set_up(monkeypatch: pytest.MonkeyPatch, collector: Collector, service: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    set_up(True, content=False, service=service)
    # If not, the SDK's exporter has changed, and each span costs several times as much.
    assert isinstance(vars(traces())["_tracer"], LeanTracer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_SDK_DISABLED", "true"),
    ],
)
def test_what_only_the_sdk_does_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        set_up(True, content=False, service="x")
        assert not isinstance(vars(traces())["_tracer"], LeanTracer)
        traces().start(NewSpan(name="a", attributes={"text": "x" * 20})).end()
        traces().close(60)
    disabled = name == "OTEL_SDK_DISABLED"
    texts = [span.attributes["text"] for span in collector.spans]
    assert texts == ([] if disabled else ["x" * (10 if "LENGTH" in name else 20)])
