"""The lean tracer writes what the SDK's tracer and exporter would write."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WrittenSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from agentapi.tracing.encoding import Unusual
from agentapi.tracing.lean import LeanSpan, LeanTracer

_TRACE_IDS = st.integers(1, 2**128 - 1)
_SPAN_IDS = st.integers(1, 2**64 - 1)
_TIMES = st.integers(0, 2**64 - 1)
_VALUES = (
    st.text(max_size=300)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.lists(st.text(max_size=200), max_size=3)
)
_KEYS = st.text(min_size=1, max_size=200)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


class _Ended:
    """A processor that remembers nothing."""

    def on_end(self, span: Any) -> None:
        """Nothing."""


def _lean(*, inherits: bool = True) -> LeanTracer:
    processor: Any = _Ended()
    return LeanTracer(TracerProvider(shutdown_on_exit=False), processor, inherits=inherits)


@st.composite
def _spans(draw: st.DrawFn) -> LeanSpan:
    state = draw(st.sampled_from([None, TraceState([("a", "1"), ("b", "2")])]))
    parent = SpanContext(
        draw(_TRACE_IDS),
        draw(_SPAN_IDS),
        is_remote=draw(st.booleans()),
        trace_flags=trace.TraceFlags(1),
        trace_state=state,
    )
    around = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    linked = SpanContext(draw(_TRACE_IDS), draw(_SPAN_IDS), is_remote=draw(st.booleans()))
    span = _lean().start_span(
        draw(st.text(max_size=300)),
        draw(st.sampled_from([around, trace.set_span_in_context(trace.INVALID_SPAN)])),
        draw(st.sampled_from(list(SpanKind))),
        draw(st.dictionaries(_KEYS, _VALUES, max_size=8)),
        draw(st.sampled_from([None, [Link(linked)], [Link(linked), Link(parent)]])),
        draw(_TIMES),
    )
    assert isinstance(span, LeanSpan)
    if draw(st.booleans()):
        span.set_status(Status(StatusCode.ERROR))
    return span


@settings(deadline=None)
@given(span=_spans(), ended=_TIMES)
def test_a_span_is_written_as_the_sdk_writes_it(span: LeanSpan, ended: int) -> None:
    assert _read(span.encoded(ended)) == _read(span.encoded_by_sdk(ended))


@settings(deadline=None)
@given(value=_VALUES)
@example(value=True)
@example(value=1)
@example(value=1.0)
@example(value="ä" * 128)
@example(value=["x"])
def test_equal_values_of_different_types_are_told_apart(value: Any) -> None:
    span = _lean().start_span("a", attributes={"b": value})
    assert isinstance(span, LeanSpan)
    assert _read(span.encoded(1)) == _read(span.encoded_by_sdk(1))


def _read(written: bytes) -> WrittenSpan:
    found: WrittenSpan = WrittenSpan.FromString(written)
    # The SDK writes an empty status where there is none.
    found.status.SetInParent()
    return found


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**64, None),
        (b"\x00\xff", "bytes_value"),
        ([1, 2], "array_value"),
        ([["a"]], "array_value"),
        ({"a": "b"}, "kvlist_value"),
        (object(), None),
        ("\ud800", None),
    ],
)
def test_values_that_are_unusual_are_left_to_the_sdk(value: Any, kept: str | None) -> None:
    span = _lean().start_span("a", attributes={"b": value, "c": 1})
    assert isinstance(span, LeanSpan)
    with pytest.raises(Unusual):
        span.encoded(1)
    found = {pair.key: pair.value for pair in _read(span.encoded_by_sdk(1)).attributes}
    assert found["c"].int_value == 1
    assert (found["b"].WhichOneof("value") if "b" in found else None) == kept


@pytest.mark.parametrize("inherits", [True, False])
def test_samplers_decide_as_with_the_sdk(
    monkeypatch: pytest.MonkeyPatch, *, inherits: bool
) -> None:
    monkeypatch.setenv(
        "OTEL_TRACES_SAMPLER", "parentbased_traceidratio" if inherits else "always_off"
    )
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    lean, sdk = _lean(inherits=inherits), TracerProvider(shutdown_on_exit=False).get_tracer("x")
    decisions = set()
    for trace_id in range(1, 2**64, 2**60):
        for flags in (0, 1, 2, 3):
            parent = SpanContext(trace_id, 1, is_remote=True, trace_flags=trace.TraceFlags(flags))
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
            mine, theirs = lean.start_span("a", context), sdk.start_span("a", context)
            assert mine.is_recording() == theirs.is_recording()
            assert mine.get_span_context()[3:] == theirs.get_span_context()[3:]
            decisions.add(mine.is_recording())
    assert decisions == ({True, False} if inherits else {False})


def test_roots_are_sampled_by_their_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracer = _lean()
    roots = [tracer.start_span("a") for _ in range(200)]
    assert 40 < sum(root.is_recording() for root in roots) < 160
    assert all(root.get_span_context().trace_flags.random_trace_id for root in roots)
