"""The traces of this process.

Each process has one `Traces`, just as it has one log and one set of metrics. Without traces, it
does nothing. If the program sets its own tracer provider, that one is used, no matter when it is
set.
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
    """Replace the traces of this process; returns the previous ones."""
    before, _installed.traces = _installed.traces, new
    _installed.looks = False
    return before


def decided() -> bool:
    """Whether the traces of this process are on."""
    return _installed.traces.on


def look_for_provider(*, content: bool) -> None:
    """Create no spans until the program sets its own tracer provider. Traces that are on stay on.

    Args:
        content: Whether the spans may contain text of people and models.
    """
    if not decided():
        _installed.looks, _installed.content = True, content


def provider_of_program() -> Any:
    """The tracer provider that the program has set, or None."""
    # A program that has set one has imported this module. Importing it just to check would slow
    # down every producer.
    api = sys.modules.get("opentelemetry.trace")
    proxy = getattr(api, "ProxyTracerProvider", None)
    if api is None or proxy is None:
        return None
    provider = api.get_tracer_provider()
    return None if isinstance(provider, proxy) else provider


def _look() -> None:
    provider = provider_of_program()
    if provider is not None:
        # Imported here, because only processes with a provider have the package.
        from agentapi.tracing.otel import OpenTelemetryTraces

        install(OpenTelemetryTraces(provider, content=_installed.content))
