"""W3C trace contexts of spans, and the ids of attempts, which are computed from their turn.

An attempt must know the span of the previous one, even if its worker was killed. So the id is not
stored but computed from the turn's id and the number of the attempt.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_FORM = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?:-[^ ]*)?(?: (?P<state>[!-~][ -~]*))?"
)

LONGEST: Final = 512
"""Maximum characters of a `tracestate` that are kept; the standard requires no more."""

SAMPLED: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceContext:
    """The context by which other spans refer to a span.

    Attributes:
        trace_id: Not 0.
        span_id: Not 0.
        flags: The flags of ``traceparent``; bit 0 says that the trace is recorded.
        state: The header ``tracestate``; empty for none.
    """

    trace_id: int
    span_id: int
    flags: int = SAMPLED
    state: str = ""

    @property
    def text(self) -> str:
        """The context in one text: ``traceparent``, a space and ``tracestate`` if there is one."""
        parent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"
        return f"{parent} {self.state}" if self.state else parent


# Cached, because each turn's context is read several times in a row.
@lru_cache(maxsize=64)
def context_from(text: str | None) -> TraceContext | None:
    """Parse `TraceContext.text` or a caller's ``traceparent``; None if it is not valid."""
    found = _FORM.fullmatch(text) if text else None
    if found is None:
        return None
    trace_id, span_id = int(found["trace"], 16), int(found["span"], 16)
    state = found["state"] or ""
    if not trace_id or not span_id:
        return None
    return TraceContext(
        trace_id=trace_id,
        span_id=span_id,
        flags=int(found["flags"], 16),
        state=state if len(state) <= LONGEST else "",
    )


def trace_id_of(turn_id: str) -> int:
    """The trace id of a turn whose producer made no spans; the same for all its attempts."""
    return _number(f"trace:{turn_id}", 16)


def attempt_of(turn_id: str, attempt: int, trace: str | None) -> TraceContext:
    """The span of an attempt of a turn.

    Args:
        turn_id: The turn.
        attempt: Number of the attempt, from 1.
        trace: The context stored with the turn: that of the span that enqueued it.
    """
    enqueued = context_from(trace)
    return TraceContext(
        trace_id=enqueued.trace_id if enqueued else trace_id_of(turn_id),
        span_id=_number(f"attempt:{turn_id}:{attempt}", 8),
        flags=enqueued.flags if enqueued else SAMPLED,
        state=enqueued.state if enqueued else "",
    )


def _number(text: str, size: int) -> int:
    # Never 0, which would not be a valid id.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big") or 1
