"""A timeline as rows of a chart, for terminals and web pages; metadata only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from agentapi.turns import TurnStatus, Verdict
from orchestrator.timeline import Approval, Attempt, AttemptEnd, Timeline, TimelineStep, Wait

Tone = Literal["waiting", "working", "good", "bad", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of the chart.

    Attributes:
        kind: What it is: ``waiting``, ``attempt``, ``model``, ``tool``, ``message``, ``child``,
            ``approval`` or ``refused write``.
        label: Its name, such as that of the worker, the model or the tool.
        detail: Further details in a few words.
        ended_at: When it ended; None while it lasts; equal to `started_at` for an instant.
        index: The step's number, for a step.
        turn_id: The child turn, for a child.
        depth: How far it is indented.
    """

    kind: str
    label: str
    detail: str
    tone: Tone
    started_at: float
    ended_at: float | None
    index: int | None = None
    turn_id: str | None = None
    depth: int = 0


_WAITS: Final = {
    "queue": "in the queue",
    "provider": "for the provider",
    "tool_server": "for the tool server",
    "approval": "for a decision",
    "client": "for the client",
    "children": "for other turns",
    "handed_back": "for another worker",
    "lost": "for another worker",
    "retried": "in the queue again",
}

_ENDS: Final = {
    AttemptEnd.COMPLETED: ("completed the turn", "good"),
    AttemptEnd.FAILED: ("the turn failed", "bad"),
    AttemptEnd.CANCELLED: ("the turn was cancelled", "note"),
    AttemptEnd.PARKED: ("parked the turn", "working"),
    AttemptEnd.HANDED_BACK: ("handed the turn back", "note"),
    AttemptEnd.LOST: ("lost: killed, or not renewing its lease", "bad"),
    AttemptEnd.DIED: ("its process died", "bad"),
}

_CAUSES: Final = {
    "first": "",
    "lease_expired": "took over",
    "worker_stopped": "took over",
    "woken": "continued",
    "retried": "tried again",
}


def rows_of(timeline: Timeline) -> list[Row]:
    """The rows, in the order in which they began."""
    rows = [
        *map(_wait, timeline.waits),
        *map(_attempt, timeline.attempts),
        *map(_step, timeline.steps),
        *_children(timeline),
        *map(_approval, timeline.approvals),
        *_refused(timeline),
    ]
    # Rows of an attempt follow it, even if both began in the same millisecond.
    return sorted(rows, key=lambda row: (row.started_at, row.depth))


def _wait(wait: Wait) -> Row:
    names = " or ".join(wait.names) if wait.reason == "provider" else ", ".join(wait.names)
    return Row(
        kind="waiting",
        label=_WAITS.get(wait.reason, wait.reason),
        detail=names,
        tone="waiting",
        started_at=wait.started_at,
        ended_at=wait.ended_at,
    )


def _attempt(attempt: Attempt) -> Row:
    how, tone = _ENDS[attempt.end] if attempt.end else ("running", "working")
    cause = _CAUSES.get(attempt.cause, attempt.cause)
    return Row(
        kind="attempt",
        label=f"{attempt.number} {attempt.worker}".rstrip(),
        detail=f"{cause}, {how}" if cause else how,
        tone=tone,  # type: ignore[arg-type]
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )


def _step(step: TimelineStep) -> Row:
    details = [step.outcome] if step.outcome else []
    if step.kind == "model":
        details.append(f"{step.input_tokens:,} + {step.output_tokens:,} tokens")
        if step.cached_tokens:
            details.append(f"{step.cached_tokens:,} cached")
        if step.cost:
            details.append(f"cost {step.cost:.6f}".rstrip("0"))
        if step.calls:
            details.append(f"{step.calls} tool call{'s' if step.calls > 1 else ''}")
        if step.repeated:
            details.append("asked again by a retry")
    if step.handoff:
        details.append(f"handed over to {step.handoff}")
    return Row(
        kind="message" if step.kind == "user" else step.kind,
        label=step.name or ("joined the turn" if step.kind == "user" else "unknown model"),
        detail=", ".join(details),
        tone="bad" if step.outcome else "good",
        started_at=step.started_at,
        ended_at=step.ended_at,
        index=step.index,
        depth=1,
    )


def _children(timeline: Timeline) -> Iterator[Row]:
    for child in timeline.children:
        ended = child.status.value if child.status else "running"
        failed = child.status not in (None, TurnStatus.COMPLETED)
        # A turn that ends before its children cancels them.
        over = child.ended_at is None and timeline.ended_at is not None
        yield Row(
            kind="child",
            label=child.turn_id,
            detail="left behind" if over else ended,
            tone="bad" if failed else "good" if child.status else "working",
            started_at=child.started_at,
            ended_at=timeline.ended_at if over else child.ended_at,
            turn_id=child.turn_id,
            depth=1,
        )


def _approval(asked: Approval) -> Row:
    if asked.verdict is None:
        detail = "waits for a decision"
    elif asked.by == "expiry":
        detail = f"{asked.verdict.value}, because nobody decided in time"
    else:
        who = asked.by or "an unnamed person"
        done = {Verdict.EDITED: "approved with other arguments"}
        detail = f"{done.get(asked.verdict, asked.verdict.value)} by {who}"
    began = asked.asked_at if asked.asked_at is not None else asked.decided_at
    return Row(
        kind="approval",
        label=asked.tool or asked.call_id,
        detail=detail,
        tone="waiting"
        if asked.verdict is None
        else "bad"
        if asked.verdict is Verdict.REJECTED
        else "good",
        started_at=began or 0.0,
        ended_at=asked.decided_at,
        depth=1,
    )


def _refused(timeline: Timeline) -> Iterator[Row]:
    for refused in timeline.refused:
        whose = f"attempt {refused.attempt} {refused.worker or ''}".rstrip()
        whose = whose if refused.attempt else "a worker"
        yield Row(
            kind="refused write",
            label=refused.write,
            detail=f"{whose} had lost the turn",
            tone="note",
            started_at=refused.at,
            ended_at=refused.at,
            depth=1,
        )
