"""Spans, and what makes them."""

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
    """What a span is to its parent."""

    INTERNAL = "internal"
    CLIENT = "client"
    PRODUCER = "producer"


# Not frozen, which would cost more than the rest of it: one is made for each span.
@dataclass(kw_only=True, slots=True)
class NewSpan:
    """A span to start.

    Attributes:
        name: Its name.
        kind: What it is to its parent.
        attributes: Those that samplers may look at.
        parent: The span that it belongs to. The current one when neither this nor `own` is given.
        own: Its own ids, if they follow from something. Without a parent it begins that trace.
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
        on: Whether it is recorded: callers ask before they work out attributes only for it.
    """

    on: bool

    @property
    def context(self) -> TraceContext | None:
        """How other spans refer to it; None if they should not."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def fail(self, code: str) -> None:
        """Its work failed, with this code."""
        ...

    def end(self, at: float | None = None) -> None:
        """Its work has ended, now or at a time in seconds since 1970. Repeats do nothing."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Let it be the parent of what begins in this context manager."""
        ...

    def enter(self) -> None:
        """Let it be the parent of everything that the running task begins from now on."""
        ...


class Traces(Protocol):
    """Makes spans. Safe to share between threads; raises nothing.

    Attributes:
        on: Whether anybody hears of spans. Callers ask before they do work only for this.
        content: Whether spans may have what people and models say.
    """

    on: bool
    content: bool

    def start(self, span: NewSpan) -> Span:
        """Begin a span. Whoever begins it must end it: only then is it exported."""
        ...

    def flush(self, patience: float) -> None:
        """Export what has ended; gives up after `patience` seconds."""
        ...

    def close(self, patience: float) -> None:
        """Export what has ended, and stop; gives up after `patience` seconds."""
        ...

    def remote(self, parent: TraceContext) -> AbstractContextManager[object]:
        """Let a span of another process be the parent of what begins in this context manager.

        Unless there is a current span already.
        """
        ...


_NOTHING = nullcontext()


class NoSpan:
    """A span that is not exported."""

    on = False

    @property
    def context(self) -> TraceContext | None:
        """Nobody refers to it."""
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
        """Nobody hears of it."""
        return NO_SPAN

    def flush(self, patience: float) -> None:
        """Nothing to export."""

    def close(self, patience: float) -> None:
        """Nothing to export."""

    def remote(self, parent: TraceContext) -> AbstractContextManager[object]:
        """Changes nothing."""
        return _NOTHING
