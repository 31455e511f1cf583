"""A trace collector that receives and decodes OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.faults import until


@dataclass(frozen=True, kw_only=True)
class Received:
    """A received span. Ids are hexadecimal; times are nanoseconds since 1970."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    began: int
    ended: int
    attributes: dict[str, Any]
    failed: bool

    @property
    def outcome(self) -> Any:
        return self.attributes.get("agentapi.outcome")


@dataclass
class Collector:
    """A collector, with the data received so far."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def named(self, name: str, **attributes: Any) -> list[Received]:
        """Spans with a name and attributes, earliest first; `_` replaces dots in attribute
        names."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        found = [
            span
            for span in list(self.spans)
            if span.name == name and wanted.items() <= span.attributes.items()
        ]
        return sorted(found, key=lambda span: span.began)

    def wait_for(self, name: str, count: int = 1, **attributes: Any) -> list[Received]:
        """Wait for a number of such spans, and return them."""
        until(
            lambda: len(self.named(name, **attributes)) >= count,
            150,
            f"span {name} {attributes}; received {[s.name for s in self.spans]}",
        )
        return self.named(name, **attributes)

    @property
    def content(self) -> bytes:
        """All received bytes."""
        return b"".join(self.bodies)

    def env(self, delay: int = 100) -> dict[str, str]:
        """Environment for processes that export to it every `delay` milliseconds."""
        return {
            "AGENTAPI_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": str(delay),
        }


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.bodies.append(body)
            collector.spans += decoded(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def decoded(body: bytes) -> list[Received]:
    """The spans of a request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Received(
            service=str(_attributes(group.resource.attributes).get("service.name")),
            name=span.name,
            kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            links=tuple(link.span_id.hex() for link in span.links),
            began=span.start_time_unix_nano,
            ended=span.end_time_unix_nano,
            attributes=_attributes(span.attributes),
            failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
