"""Spans, and the interface that creates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from agentapi.tracing.context import TraceContext

Value: TypeAlias = str | int | float | bool | Sequence[str]
"""A value of an attribute."""

Attributes: TypeAlias = Mapping[str, Value]


class Kind(StrEnum):
    """The role of a span relative to its parent."""

    INTERNAL = "internal"
    CLIENT = "client"
    PRODUCER = "producer"


# Not frozen, because freezing would cost more than the rest, and each span needs one.
@dataclass(kw_only=True, slots=True)
class NewSpan:
    """A span to start.

    Attributes:
        name: Its name.
        kind: Its role relative to its parent.
        attributes: Attributes that samplers can use.
        parent: The span that it belongs to. The current one when neither this nor `own` is given.
        own: Its own ids, if they are predetermined. Without a parent, it begins that trace.
        links: Spans that it continues.
        began: When it began, in seconds since 1970; now when None.
    """

    name: str
    kind: Kind = Kind.INTERNAL
    attributes: Attributes = field(default_factory=dict)
    parent: TraceContext | None = None
    own: TraceContext | None = None
    links: Sequence[TraceContext] = ()
    began: float | None = None


class Span(Protocol):
    """A span that has begun. Safe to pass between threads; raises nothing.

    Attributes:
        on: Whether it is recorded. Callers check this before they compute attributes only for it.
    """

    on: bool

    @property
    def context(self) -> TraceContext | None:
        """The context by which other spans refer to it; None if they must not."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def fail(self, code: str) -> None:
        """Mark its work as failed, with an error code."""
        ...

    def end(self, at: float | None = None) -> None:
        """End the span, now or at a time in seconds since 1970. Repeated calls do nothing."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """A context manager in which it is the parent of new spans."""
        ...

    def enter(self) -> None:
        """Make it the parent of all spans that the running task begins from now on."""
        ...


class Traces(Protocol):
    """Makes spans. Safe to share between threads; raises nothing.

    Attributes:
        on: Whether spans are exported. Callers check this before they do work only for spans.
        content: Whether spans may contain text of people and models.
    """

    on: bool
    content: bool

    def start(self, span: NewSpan) -> Span:
        """Begin a span. The caller must end it; it is exported only then."""
        ...

    def flush(self, patience: float) -> None:
        """Export the ended spans; gives up after `patience` seconds."""
        ...

    def close(self, patience: float) -> None:
        """Export the ended spans, and stop; gives up after `patience` seconds."""
        ...

    def remote(self, parent: TraceContext) -> AbstractContextManager[object]:
        """A context manager in which a span of another process is the parent of new spans.

        A current span takes precedence.
        """
        ...


_NOTHING = nullcontext()


class NoSpan:
    """A span that is not exported."""

    on = False

    @property
    def context(self) -> TraceContext | None:
        """Always None."""
        return None

    def set(self, attributes: Attributes) -> None:
        """Nobody hears it."""

    def fail(self, code: str) -> None:
        """Nobody hears it."""

    def end(self, at: float | None = None) -> None:
        """Nobody hears it."""

    def current(self) -> AbstractContextManager[object]:
        """Changes nothing."""
        return _NOTHING

    def enter(self) -> None:
        """Changes nothing."""


NO_SPAN = NoSpan()


class NoTraces:
    """For a process without traces."""

    on = False
    content = False

    def start(self, span: NewSpan) -> Span:
        """Return a span that is not exported."""
        return NO_SPAN

    def flush(self, patience: float) -> None:
        """Nothing to export."""

    def close(self, patience: float) -> None:
        """Nothing to export."""

    def remote(self, parent: TraceContext) -> AbstractContextManager[object]:
        """Changes nothing."""
        return _NOTHING
