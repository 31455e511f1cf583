"""Traces: what a process does for turns, as spans of OpenTelemetry.

Spans are not exported until `set_up` turns traces on.
"""

from contextlib import suppress

from agentapi.errors import ConfigurationError
from agentapi.tracing.installed import (
    decided,
    install,
    look_for_provider,
    provider_of_program,
    traces,
)
from agentapi.tracing.spans import NO_SPAN, Attributes, Kind, NewSpan, NoTraces, Span, Traces

__all__ = [
    "NO_SPAN",
    "Attributes",
    "Kind",
    "NewSpan",
    "NoTraces",
    "Span",
    "Traces",
    "install",
    "preload_traces",
    "set_up",
    "traces",
]


def set_up(wanted: bool | None, *, content: bool, service: str) -> None:
    """Turn the traces of this process on or off, as the settings say.

    Args:
        wanted: True for a provider of our own unless the program has set one; None to use only
            the program's, whenever it is set; False for no spans.
        content: Whether spans may have what people and models say.
        service: The name of the service unless OpenTelemetry's own variables name it.

    Raises:
        ConfigurationError: The extra ``otel`` is not installed, or OpenTelemetry's variables are
            not valid.
    """
    if wanted is None:
        look_for_provider(content=content)
    elif not wanted:
        install(NoTraces())
    elif decided():
        # Several producers of a process share its traces.
        return
    elif (provider := provider_of_program()) is not None:
        # Here and below: only processes with traces need the packages.
        from agentapi.tracing.otel import OpenTelemetryTraces

        install(OpenTelemetryTraces(provider, content=content))
    else:
        from agentapi.tracing.provider import own_traces

        install(own_traces(content=content, service=service))


def preload_traces(wanted: bool | None) -> None:
    """Import what `set_up` would import, and start nothing: for a process that is to be forked.

    What is not installed is an error of `set_up`.
    """
    if wanted:
        with suppress(ConfigurationError):
            from agentapi.tracing.provider import preload

            preload()
