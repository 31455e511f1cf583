"""The traces of this process: what its parts tell about their work, and who hears it.

There is one for each process, like the log and the metrics. A process without traces has one that
does nothing. If the program that runs in the process has set a tracer provider of its own, that one
is used, whenever it was set.
"""

from __future__ import annotations

import sys
from typing import Any

from agentapi.tracing.spans import NoTraces, Traces


class _Installed:
    """The traces of this process."""

    def __init__(self) -> None:
        self.traces: Traces = NoTraces()
        # Whether to look for a provider that the program may set.
        self.looks = True
        self.content = False


_installed = _Installed()


def traces() -> Traces:
    """The traces of this process."""
    if _installed.looks:
        _look()
    return _installed.traces


def install(new: Traces) -> Traces:
    """Replace the traces of this process; returns those before."""
    before, _installed.traces = _installed.traces, new
    _installed.looks = False
    return before


def decided() -> bool:
    """Whether this process has traces that are on."""
    return _installed.traces.on


def look_for_provider(*, content: bool) -> None:
    """Make no spans until the program sets a tracer provider of its own; traces that are on stay.

    Args:
        content: Whether the spans may have what people and models say.
    """
    if not decided():
        _installed.looks, _installed.content = True, content


def provider_of_program() -> Any:
    """The tracer provider that the program has set, or None."""
    # Whoever has set one has imported this. Importing it only to look would cost every producer.
    api = sys.modules.get("opentelemetry.trace")
    proxy = getattr(api, "ProxyTracerProvider", None)
    if api is None or proxy is None:
        return None
    provider = api.get_tracer_provider()
    return None if isinstance(provider, proxy) else provider


def _look() -> None:
    provider = provider_of_program()
    if provider is not None:
        # Here: only processes with a provider have the package.
        from agentapi.tracing.otel import OpenTelemetryTraces

        install(OpenTelemetryTraces(provider, content=_installed.content))
