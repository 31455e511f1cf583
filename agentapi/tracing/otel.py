"""Spans through OpenTelemetry's API."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any, Final

from agentapi.extras import needs_extra
from agentapi.logs import line
from agentapi.tracing.context import TraceContext
from agentapi.tracing.spans import NO_SPAN, Attributes, Kind, NewSpan, Span

with needs_extra("otel", "tracing"):
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace import TraceFlags, TraceState

log = logging.getLogger("agentapi.tracing")

SCOPE: Final = "agentapi"
"""The instrumentation scope of all our spans."""

_NANO: Final = 1_000_000_000

_KINDS: Final = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
}


class OpenTelemetryTraces:
    """See `Traces`. Errors of processors, samplers and exporters never reach callers."""

    on = True

    def __init__(
        self,
        provider: trace.TracerProvider,
        *,
        content: bool,
        own: bool = False,
        tracer: Any = None,
    ) -> None:
        """Create spans through a provider.

        Args:
            provider: The provider. If it is not from OpenTelemetry's SDK, it chooses its own ids
                for attempts, so links to them lead nowhere.
            content: Whether spans may contain text of people and models.
            own: Whether nobody else uses the provider, so that it is shut down with this process's
                work.
            tracer: Starts its spans; the provider's own tracer if None.
        """
        self.content = content
        self._provider: Any = provider
        self._own, self._closed = own, False
        self._tracer = tracer or provider.get_tracer(SCOPE, version("agentapi"))
        self._ids = _ids_of(self._tracer)

    def start(self, span: NewSpan) -> Span:
        """See `Traces.start`."""
        try:
            return _Span(self._start(span))
        except Exception as error:
            _failed(error)
            return NO_SPAN

    def _start(self, new: NewSpan) -> trace.Span:
        context = None
        if new.parent is not None:
            context = _context_of(new.parent)
        elif new.own is not None:
            # An unrelated current span must not become its parent.
            context = contexts.Context()
        if new.own is None or self._ids is None:
            return self._begin(new, context)
        self._ids.choose(new.own)
        try:
            return self._begin(new, context)
        finally:
            self._ids.choose(None)

    def _begin(self, new: NewSpan, context: contexts.Context | None) -> trace.Span:
        return self._tracer.start_span(
            new.name,
            context,
            _KINDS[new.kind],
            new.attributes,
            [trace.Link(_span_context(link)) for link in new.links] if new.links else None,
            None if new.began is None else round(new.began * _NANO),
        )

    def flush(self, patience: float) -> None:
        """See `Traces.flush`."""
        self._within(patience, getattr(self._provider, "force_flush", None))

    def close(self, patience: float) -> None:
        """See `Traces.close`. The provider of the program itself is only flushed."""
        if not self._own:
            self.flush(patience)
        elif not self._closed:
            self._closed = True
            self._within(patience, self._provider.shutdown)

    def remote(self, parent: TraceContext) -> AbstractContextManager[object]:
        """See `Traces.remote`. A span of this process wins: its own parent is the remote one."""
        if trace.get_current_span().get_span_context().is_valid:
            return nullcontext()
        return _attached(trace.NonRecordingSpan(_span_context(parent)))

    def _within(self, patience: float, call: Callable[[], object] | None) -> None:
        """Make a call that may wait for a collector that does not answer."""
        if call is None:
            return

        def make() -> None:
            try:
                call()
            except Exception as error:
                _failed(error)

        # A daemon thread, so that the process does not wait for calls that were given up.
        thread = threading.Thread(target=make, name="agentapi-traces", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is shutting down, so no thread can start.
            make()
            return
        thread.join(patience)
        if thread.is_alive():
            log.warning(line("traces.not_exported", seconds=patience))


class _Span:
    """See `Span`."""

    __slots__ = ("_ended", "_span", "on")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._ended = False
        self.on = span.is_recording()

    @property
    def context(self) -> TraceContext | None:
        """See `Span.context`."""
        return _found(self._span.get_span_context())

    def set(self, attributes: Attributes) -> None:
        """See `Span.set`."""
        if self.on:
            self._guarded(self._span.set_attributes, attributes)

    def fail(self, code: str) -> None:
        """See `Span.fail`."""
        if self.on:
            self._guarded(self._span.set_attribute, "error.type", code)
            # No description, because the text of an error may quote messages.
            self._guarded(self._span.set_status, trace.Status(trace.StatusCode.ERROR))

    def end(self, at: float | None = None) -> None:
        """See `Span.end`."""
        if not self._ended:
            self._ended = True
            self._guarded(self._span.end, None if at is None else round(at * _NANO))

    def current(self) -> AbstractContextManager[object]:
        """See `Span.current`."""
        return _attached(self._span)

    def enter(self) -> None:
        """See `Span.enter`. The context ends with the task."""
        contexts.attach(trace.set_span_in_context(self._span))

    def _guarded(self, call: Callable[..., object], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            _failed(error)


class _ChosenIds:
    """An id generator of OpenTelemetry's SDK, for which the next span's ids can be chosen."""

    def __init__(self, others: Any) -> None:
        self._others = others
        # A span's ids are generated in the thread that starts it.
        self._next = threading.local()

    def choose(self, own: TraceContext | None) -> None:
        """Give these ids to the next span of this thread; None for generated ids."""
        self._next.own = own

    def generate_span_id(self) -> int:
        own: TraceContext | None = getattr(self._next, "own", None)
        return int(self._others.generate_span_id()) if own is None else own.span_id

    def generate_trace_id(self) -> int:
        own: TraceContext | None = getattr(self._next, "own", None)
        return int(self._others.generate_trace_id()) if own is None else own.trace_id

    def is_trace_id_random(self) -> bool:
        # Chosen ids are hashes, which samplers can treat as random.
        found = getattr(self._others, "is_trace_id_random", None)
        return bool(found is not None and found())


_choosing = threading.Lock()


def _ids_of(tracer: Any) -> _ChosenIds | None:
    """Make the ids of a tracer's spans choosable, if the tracer is from OpenTelemetry's SDK."""
    with _choosing:
        others = getattr(tracer, "id_generator", None)
        if others is None or isinstance(others, _ChosenIds):
            return others
        # A provider returns the same tracer for the same scope; no other tracer changes.
        ids = tracer.id_generator = _ChosenIds(others)
        return ids


@contextmanager
def _attached(span: trace.Span) -> Iterator[None]:
    token = contexts.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        contexts.detach(token)


def _context_of(parent: TraceContext) -> contexts.Context:
    span = trace.NonRecordingSpan(_span_context(parent))
    return trace.set_span_in_context(span, contexts.Context())


def _span_context(found: TraceContext) -> trace.SpanContext:
    state = TraceState.from_header([found.state]) if found.state else None
    return trace.SpanContext(
        found.trace_id, found.span_id, True, TraceFlags(found.flags), trace_state=state
    )


def _found(context: trace.SpanContext) -> TraceContext | None:
    if not context.is_valid:
        return None
    return TraceContext(
        trace_id=context.trace_id,
        span_id=context.span_id,
        flags=int(context.trace_flags),
        state=context.trace_state.to_header() if context.trace_state else "",
    )


_QUIET_FOR: Final = 60.0


class _Failures:
    """Logs failures of tracing only now and then, because each span may fail."""

    def __init__(self) -> None:
        self.last = -_QUIET_FOR


_failures = _Failures()


def _failed(error: Exception) -> None:
    now = time.monotonic()
    if now - _failures.last >= _QUIET_FOR:
        _failures.last = now
        log.warning(line("traces.failed", error=type(error).__name__))
