"""A tracer that costs a turn little: its spans are few objects, and quickly encoded.

A span of OpenTelemetry's SDK is some thirty objects, which are kept until a thread encodes them.
Encoding takes longer than the rest of the span's life, in the same interpreter as the turns, and
the garbage collector looks at everything that is kept. Here that is one or two objects for a span.
They are encoded many at a time, which takes half as long as one after each turn. The sampler, the
resource, the queue, the thread that exports and the connection are the SDK's here too.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from agentapi.extras import needs_extra
from agentapi.tracing.encoding import (
    Unusual,
    element,
    encoded_link,
    encoded_span,
    flags_of,
    request,
)

with needs_extra("otel", "AGENTAPI_TRACES"):
    from opentelemetry import trace
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Decision
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

_KINDS: Final = {kind: kind.value + 1 for kind in SpanKind}
"""The protocol's numbers for them."""

_SAMPLED: Final = trace.TraceFlags.SAMPLED
_RANDOM: Final = trace.TraceFlags.RANDOM_TRACE_ID


class Client(Protocol):
    """Sends requests, and repeats them: a part of the SDK's exporter."""

    def export(self, data: bytes, /) -> Any:
        """Send a request; `success` of the answer says whether it arrived."""
        ...


class LeanExporter(SpanExporter):
    """Exports spans of `LeanTracer`, through the connection of one of the SDK's exporters."""

    def __init__(
        self,
        exporter: SpanExporter,
        client: Client,
        provider: TracerProvider,
        scope: InstrumentationScope,
    ) -> None:
        self._exporter, self._client = exporter, client
        self._provider, self._scope = provider, scope
        self._resource: Resource | None = None
        self._around = (b"", b"")

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send some spans."""
        resource = self._provider.resource
        # A process that was forked has another one.
        if self._resource is not resource:
            self._around = _around(resource, self._scope)
            self._resource = resource
        elements = [element(span.written()) for span in spans]
        answer = self._client.export(request(*self._around, elements))
        return SpanExportResult.SUCCESS if answer.success else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Stop; whatever is being sent is given up."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


class LeanTracer:
    """Starts spans, like a tracer of OpenTelemetry's SDK.

    Attributes:
        id_generator: Makes their ids.
    """

    def __init__(
        self, provider: TracerProvider, processor: BatchSpanProcessor, *, inherits: bool
    ) -> None:
        """Make spans of a provider.

        Args:
            provider: Has the sampler, and gets what its users want of a provider.
            processor: Gets the spans that ended.
            inherits: Whether the sampler decides only for spans without a parent.
        """
        self.id_generator: IdGenerator = RandomIdGenerator()
        self._provider, self._ended = provider, processor.on_end
        self._inherits = inherits

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
    ) -> trace.Span:
        """See `opentelemetry.trace.Tracer.start_span`."""
        ids, parent = self.id_generator, trace.get_current_span(context)
        state: TraceState | None
        if type(parent) is LeanSpan:
            trace_id, parent_id, flags = parent.trace_id, parent.span_id, parent.flags
            state, remote = parent.state, False
        else:
            found = parent.get_span_context()
            parent_id, flags = found.span_id, int(found.trace_flags)
            trace_id, state, remote = found.trace_id, found.trace_state, found.is_remote
            if not found.is_valid:
                parent_id, state, trace_id = 0, None, ids.generate_trace_id()
                flags = _RANDOM if ids.is_trace_id_random() else 0
        if self._inherits and parent_id:
            sampled = flags & _SAMPLED
        else:
            result = self._provider.sampler.should_sample(
                context, trace_id, name, kind, attributes, links or ()
            )
            sampled = _SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else 0
            attributes, state = result.attributes, result.trace_state
        flags = flags & _RANDOM | sampled
        span_id = ids.generate_span_id()
        if not sampled:
            return trace.NonRecordingSpan(_context(trace_id, span_id, flags, state))
        span = LeanSpan()
        span.name, span.kind, span.links = name, kind, links
        span.trace_id, span.span_id, span.parent_id = trace_id, span_id, parent_id
        span.flags, span.state, span.remote = flags, state, remote
        span.attributes = dict(attributes) if attributes else {}
        span.events, span.status, span.recording = None, None, True
        span.tracer = self
        span.began = time.time_ns() if start_time is None else start_time
        return span

    def ended(self, span: LeanSpan, at: int) -> None:
        """A span has ended."""
        span.at = at
        waiting: Any = span
        self._ended(waiting)


class LeanSpan(trace.Span):
    """A span that is recorded. Users come by it as the current span."""

    __slots__ = (
        *("at", "attributes", "began", "events", "flags", "kind", "links", "name", "parent_id"),
        *("recording", "remote", "span_id", "state", "status", "trace_id", "tracer"),
    )

    # All that the SDK's processor looks at: this one waits for its export.
    context = SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(_SAMPLED))

    at: int
    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    parent_id: int
    flags: int
    state: TraceState | None
    remote: bool
    began: int
    attributes: dict[str, Any]
    links: Sequence[Link] | None
    events: list[Event] | None
    status: Status | None
    recording: bool
    tracer: LeanTracer

    def end(self, end_time: int | None = None) -> None:
        """The span's work has ended."""
        if self.recording:
            self.recording = False
            self.tracer.ended(self, time.time_ns() if end_time is None else end_time)

    def get_span_context(self) -> SpanContext:
        """How others refer to the span."""
        return _context(self.trace_id, self.span_id, self.flags, self.state)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes."""
        if self.recording:
            self.attributes.update(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Add an attribute."""
        if self.recording:
            self.attributes[key] = value

    def add_event(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Something happened meanwhile."""
        if self.recording:
            kept = BoundedAttributes(attributes=attributes)
            self.events = [*(self.events or ()), Event(name, kept, timestamp)]

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Point to another span."""
        if self.recording:
            kept = BoundedAttributes(attributes=attributes)
            self.links = [*(self.links or ()), Link(context, kept)]

    def update_name(self, name: str) -> None:
        """Change the name."""
        if self.recording:
            self.name = name

    def is_recording(self) -> bool:
        """Whether anybody will hear of what is added."""
        return self.recording

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went. That it went well is final."""
        found = status if isinstance(status, Status) else Status(status, description)
        final = self.status is not None and self.status.status_code is StatusCode.OK
        if self.recording and not final and found.status_code is not StatusCode.UNSET:
            self.status = found

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event for an exception."""
        kind = type(exception)
        said = {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**said, **(attributes or {})}, timestamp)

    def written(self) -> bytes:
        """The span in the form of the protocol, after its end."""
        try:
            return self.encoded(self.at)
        except Unusual:
            return self.encoded_by_sdk(self.at)

    def encoded(self, ended: int) -> bytes:
        """The span in the form of the protocol.

        Raises:
            Unusual: It has what only the SDK encodes.
        """
        status, links = self.status, self.links
        if self.events or (status is not None and (status.is_ok or status.description)):
            raise Unusual
        span = encoded_span(
            (self.trace_id, self.span_id, self.parent_id),
            (self.began, ended),
            self.name,
            kind=_KINDS[self.kind],
            flags=flags_of(remote=self.remote),
            state=self.state.to_header() if self.state else "",
            attributes=self.attributes,
            failed=status is not None,
        )
        return span + b"".join(map(_link, links)) if links else span

    def encoded_by_sdk(self, ended: int) -> bytes:
        """The same for any span."""
        parent = SpanContext(self.trace_id, self.parent_id, self.remote) if self.parent_id else None
        whole = ReadableSpan(
            self.name,
            self.get_span_context(),
            parent,
            attributes=BoundedAttributes(attributes=self.attributes),
            events=self.events or (),
            links=self.links or (),
            kind=self.kind,
            status=self.status or Status(),
            start_time=self.began,
            end_time=ended,
        )
        [of_resource] = encode_spans([whole]).resource_spans
        return bytes(of_resource.scope_spans[0].spans[0].SerializeToString())


def _link(link: Link) -> bytes:
    if link.attributes:
        raise Unusual
    found = link.context
    return encoded_link(found.trace_id, found.span_id, flags=flags_of(remote=found.is_remote))


def _context(trace_id: int, span_id: int, flags: int, state: TraceState | None) -> SpanContext:
    return SpanContext(
        trace_id, span_id, is_remote=False, trace_flags=trace.TraceFlags(flags), trace_state=state
    )


def _around(resource: Resource, scope: InstrumentationScope) -> tuple[bytes, bytes]:
    """What is around the spans in a request: see `request`."""
    none = ReadableSpan("", LeanSpan.context, resource=resource, instrumentation_scope=scope)
    of_resource = encode_spans([none]).resource_spans[0]
    of_scope = of_resource.scope_spans[0]
    del of_scope.spans[:]
    encoded = of_scope.SerializeToString()
    del of_resource.scope_spans[:]
    return of_resource.SerializeToString(), encoded
