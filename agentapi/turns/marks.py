"""Marks: what a turn's log says happened to it, and when; one line each.

The scripts of the protocol write them beside their own change, so they cost no round trip. A mark
is a JSON array: milliseconds since the turn's acceptance, the kind, and what the kind says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from agentapi.conversation.finish import COMPLETE
from agentapi.turns.steps import ModelStep, Step, ToolStep

LONGEST_LOG: Final = 16_384
SHORTENED_LOG: Final = 12_288
"""Size in bytes above which a log is shortened, and the size of the end that is kept. The same as
in prelude.lua."""

LONGEST_DECISION: Final = 2_048
"""Maximum bytes of a decision, as JSON, that is recorded with its reason and arguments."""


class MarkKind(StrEnum):
    """What happened, with what the mark says in brackets."""

    CLAIMED = "c"
    """A worker took the turn [attempt, worker, cause, ms that the turn could have run, epoch]."""
    MODEL = "m"
    """A model answered [ms, model, input, output and cached tokens, cost, ``rejected`` or the
    finish reason of a response that was not complete, number of calls; 1 if it is not recorded,
    because the turn ended with it]."""
    TOOL = "t"
    """A tool call has its result [ms, tool, call, failed (0|1), agent that it handed over to]."""
    USER = "u"
    """A message joined the turn."""
    PARKED = "p"
    """The turn waits without a worker [data of the event `parked`]."""
    HANDED_BACK = "h"
    """A worker that was stopped gave the turn back [ms until the turn may run]."""
    LOST = "l"
    """The turn's worker was silent for longer than its lease."""
    DIED = "x"
    """The process in which the turn ran alone died [deaths so far]."""
    DELEGATED = "k"
    """A call waits for child turns [call, their ids]."""
    REPLIED = "n"
    """A child turn has ended [data of the event `replied`]."""
    DECIDED = "d"
    """A person decided about a call, or its time was up [call, decision]."""
    ANSWERED = "a"
    """The client gave the output of a call [call, whether its time was up]."""
    RETRIED = "r"
    """The failed turn was queued again [ms at which it had ended]."""
    REFUSED = "f"
    """A write by a worker that had lost the turn was refused [script, epoch]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One line of a turn's log.

    Attributes:
        at: Seconds since 1970, by the store's clock.
        data: What it says; see `MarkKind`.
    """

    at: float
    kind: MarkKind
    data: Sequence[Any] = ()


def last_mark(step: Step) -> tuple[MarkKind, list[Any]]:
    """The mark of a response that was not recorded, because the turn ended with it."""
    kind, data = step_mark(step)
    return kind, [*data, 1]


def step_mark(step: Step) -> tuple[MarkKind, list[Any]]:
    """The mark of a recorded step."""
    if isinstance(step, ModelStep):
        message, usage = step.message, step.usage
        went = "" if message.finish_reason in COMPLETE else message.finish_reason.value
        if step.rejected is not None:
            went = "rejected"
        return MarkKind.MODEL, [
            _milliseconds(step.seconds),
            message.model or "",
            *(usage.input_tokens, usage.output_tokens, usage.cached_tokens),
            round(usage.cost, 9),
            went,
            len(message.tool_calls),
        ]
    if isinstance(step, ToolStep):
        result = step.message
        data = [_milliseconds(step.seconds), result.name, result.call_id, int(result.is_error)]
        return MarkKind.TOOL, [*data, step.handoff] if step.handoff else data
    return MarkKind.USER, []


def mark_json(kind: MarkKind, data: Sequence[Any]) -> bytes:
    """A mark without its time, as the scripts take it: the inside of a JSON array."""
    return orjson.dumps([kind, *data])[1:-1]


def added(log: str, created_at: float, at: float, inside: bytes) -> str:
    """A log with one more line; what `note` in prelude.lua does.

    Args:
        log: The log so far; empty at first.
        created_at: When the turn was accepted.
        at: When it happened.
        inside: See `mark_json`.
    """
    line = f"[{int((at - created_at) * 1000)},{inside.decode()}]"
    longer = f"{log}\n{line}" if log else line
    if len(longer.encode()) > LONGEST_LOG:
        kept = longer.encode()[-SHORTENED_LOG:]
        longer = kept.partition(b"\n")[2].decode()
    return longer


def marks_of(log: bytes | str, created_at: float) -> list[Mark]:
    """Read a log, oldest first. Lines that no release or only a newer one writes are left out."""
    found: list[Mark] = []
    for line in log.splitlines():
        try:
            at, kind, *data = orjson.loads(line)
            # Rounded as the store's own times are: to milliseconds.
            moment = round(created_at + at / 1000, 3)
            found.append(Mark(at=moment, kind=MarkKind(kind), data=data))
        except (ValueError, TypeError):
            continue
    # A question that expires is noted when somebody looks, with the time at which it expired.
    found.sort(key=lambda mark: mark.at)
    return found


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
