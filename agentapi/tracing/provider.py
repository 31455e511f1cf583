"""agentapi's own tracer provider, for programs that set none: OTLP over HTTP, by OTEL_*
variables."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

from agentapi.errors import ConfigurationError
from agentapi.extras import needs_extra
from agentapi.tracing.lean import LeanExporter, LeanTracer
from agentapi.tracing.otel import SCOPE, OpenTelemetryTraces
from agentapi.tracing.spans import NoTraces, Traces

with needs_extra("otel", "AGENTAPI_TRACES"):
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

EXIT: Final = 5.0
"""Time limit for the last export when the process ends, in seconds."""

_PROTOCOL: Final = "http/protobuf"

_INHERITING: Final = (
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
"""The SDK's samplers that follow the parent's decision for spans with a parent."""

_ONLY_SDK: Final = ("_LIMIT", "_SDK_DISABLED", "_INTERNAL_METRICS_ENABLED")
"""Suffixes of variables that the lean tracer does not support."""


def own_traces(*, content: bool, service: str) -> Traces:
    """Traces with agentapi's own provider. The thread of its processor starts here.

    Args:
        content: Whether spans may contain text of people and models.
        service: Name of the service, unless OpenTelemetry's own variables set it.

    Raises:
        ConfigurationError: OpenTelemetry's variables request something that is not supported, or
            have a value that is not valid.
    """
    if _exporter() == "none":
        return NoTraces()
    try:
        # Without its own exit handler, which waits half a minute for an unavailable collector.
        provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        exporter = OTLPSpanExporter()
        tracer = lean_tracer(provider, exporter)
        if tracer is None:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise ConfigurationError(
            f"a variable of OpenTelemetry (OTEL_*) is not valid: {error}"
        ) from error
    made = OpenTelemetryTraces(provider, content=content, own=True, tracer=tracer)
    atexit.register(made.close, EXIT)
    return made


def lean_tracer(provider: TracerProvider, exporter: SpanExporter) -> LeanTracer | None:
    """A tracer with cheap spans; None if only the SDK's own tracer supports the configuration.

    The thread of its processor starts here, and ends with the provider.
    """
    # The SDK has no public API to send encoded spans.
    client: Any = getattr(exporter, "_client", None)
    if not callable(getattr(client, "export", None)) or any(_only_sdk(name) for name in os.environ):
        return None
    scope = InstrumentationScope(SCOPE, version("agentapi"))
    processor = BatchSpanProcessor(LeanExporter(exporter, client, provider, scope))
    provider.add_span_processor(processor)
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or _INHERITING[0]
    return LeanTracer(provider, processor, inherits=sampler in _INHERITING)


def _only_sdk(variable: str) -> bool:
    """Whether a variable requests something that only the SDK's tracer supports."""
    return variable.startswith("OTEL_") and variable.endswith(_ONLY_SDK)


def preload() -> None:
    """Import the modules that the first exporter needs, without starting anything."""
    # `own_traces` reports errors of the configuration.
    with suppress(Exception):
        exporter: SpanExporter = OTLPSpanExporter()
        exporter.shutdown()


def _exporter() -> str:
    """The configured exporter.

    Raises:
        ConfigurationError: The exporter is not supported.
    """
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if wanted not in ("otlp", "none"):
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER is {wanted!r}: AGENTAPI_TRACES supports 'otlp' and 'none'; for "
            "another exporter set a tracer provider in a module of AGENTAPI_AGENTS"
        )
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(name, "").strip()
        if protocol == _PROTOCOL:
            break
        if protocol:
            raise ConfigurationError(
                f"{name} is {protocol!r}, but AGENTAPI_TRACES exports only by {_PROTOCOL!r}, which "
                "collectors accept on port 4318: set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to it"
            )
    return wanted


def _resource(service: str) -> Resource:
    # Arguments given here would override the variables.
    named = "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if named or os.environ.get("OTEL_SERVICE_NAME"):
        return Resource.create()
    return Resource.create({"service.name": service})
