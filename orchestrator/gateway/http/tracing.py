"""Continues the traces of callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers

from agentapi.logs import binding
from agentapi.tracing import traces
from agentapi.tracing.context import context_from


@contextmanager
def in_callers_trace(headers: Headers) -> Iterator[None]:
    """Let turns that are enqueued in the body continue the trace of the header ``traceparent``."""
    made = traces()
    given = headers.get("traceparent") if made.on else None
    if not given:
        yield
        return
    given = given.strip()
    state = ",".join(headers.getlist("tracestate"))
    # An invalid state is dropped, but the trace still continues.
    parent = context_from(f"{given} {state}".strip()) or context_from(given)
    if parent is None:
        yield
        return
    with made.remote(parent), binding({"trace_id": f"{parent.trace_id:032x}"}):
        yield
