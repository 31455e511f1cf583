"""Traces: the work of a process for its turns, as OpenTelemetry spans.

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
    """Turn the traces of this process on or off, according to the settings.

    Args:
        wanted: True to use agentapi's own provider unless the program has set one; None to use only
            the program's provider, whenever it is set; False for no spans.
        content: Whether spans may contain text of people and models.
        service: Name of the service, unless OpenTelemetry's own variables set it.

    Raises:
        ConfigurationError: The extra ``otel`` is not installed, or OpenTelemetry's variables are
            not valid.
    """
    if wanted is None:
        look_for_provider(content=content)
    elif not wanted:
        install(NoTraces())
    elif decided():
        # The producers of a process share its traces.
        return
    elif (provider := provider_of_program()) is not None:
        # Imported here and below, because only processes with traces need the packages.
        from agentapi.tracing.otel import OpenTelemetryTraces

        install(OpenTelemetryTraces(provider, content=content))
    else:
        from agentapi.tracing.provider import own_traces

        install(own_traces(content=content, service=service))


def preload_traces(wanted: bool | None) -> None:
    """Import what `set_up` would import, without starting anything, in a process that will fork.

    `set_up` reports packages that are not installed.
    """
    if wanted:
        with suppress(ConfigurationError):
            from agentapi.tracing.provider import preload

            preload()
