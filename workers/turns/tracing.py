"""A span for each attempt of a turn. It ends with the attempt, so a waiting turn has no open
span."""

from __future__ import annotations

from typing import Any, Final

from agentapi.stores import Claim, ClaimCause
from agentapi.tracing import NO_SPAN, NewSpan, Span, Traces, traces
from agentapi.tracing import names as n
from agentapi.tracing.context import attempt_of, context_from
from agentapi.turns import Turn
from agentapi.turns.kinds import TurnKind
from workers.turns.claimed import ClaimedTurn
from workers.turns.decision import AbandonReason
from workers.turns.measuring import cause_of
from workers.turns.summary import Summary

LOST: Final = AbandonReason.LEASE_LOST.value
"""The outcome of an attempt that has lost its lease to another worker."""

_WORKFLOWS: Final = frozenset({TurnKind.GATHER, TurnKind.CHAIN})

_WELL: Final = frozenset({"completed", "cancelled", "parked", "handed_back", "unknown_agent"})
"""Outcomes of successful attempts."""


def begun(claim: Claim) -> Span:
    """The span of a new attempt."""
    made = traces()
    if not made.on:
        return NO_SPAN
    turn = claim.turn
    if claim.cause is ClaimCause.LEASE_EXPIRED:
        _report_lost(made, claim)
    attributes = {
        **_attributes(turn),
        n.ATTEMPT: turn.attempt,
        n.EPOCH: claim.lease.epoch,
        n.CAUSE: cause_of(claim),
        n.WORKER: turn.worker or "",
    }
    return _start(made, turn, turn.attempt, attributes)


def ended(span: Span, turn: ClaimedTurn, summary: Summary) -> None:
    """Record that a worker released a turn, with the status in the summary."""
    if span.on:
        outcome, spent = str(summary.get("status", "not_ended")), turn.progress.usage
        attributes: dict[str, Any] = {
            n.OUTCOME: outcome,
            n.STEPS: len(turn.progress.steps),
            n.INPUT_TOKENS: spent.input_tokens,
            n.OUTPUT_TOKENS: spent.output_tokens,
        }
        if spent.cost:
            attributes[n.COST] = spent.cost
        if outcome == LOST:
            # Its work happened, but does not belong to the turn: another worker continues it.
            attributes[n.FENCED] = True
        span.set(attributes)
        if outcome not in _WELL:
            span.fail(str(summary.get("error", outcome)))
    span.end()


def left(span: Span, summary: Summary) -> None:
    """Record that a turn was claimed but cannot run here."""
    outcome = str(summary.get("status", ""))
    span.set({n.OUTCOME: outcome})
    if outcome not in _WELL:
        span.fail(str(summary.get("error", outcome)))
    span.end()


def _start(
    made: Traces, turn: Turn, attempt: int, attributes: dict[str, Any], began: float | None = None
) -> Span:
    workflow = turn.kind in _WORKFLOWS
    operation = n.INVOKE_WORKFLOW if workflow else n.INVOKE_AGENT
    return made.start(
        NewSpan(
            name=f"{operation} {turn.agent}",
            attributes={n.OPERATION: operation, **attributes},
            parent=context_from(turn.trace),
            own=attempt_of(turn.turn_id, attempt, turn.trace),
            links=[attempt_of(turn.turn_id, attempt - 1, turn.trace)] if attempt > 1 else [],
            began=began,
        )
    )


def _report_lost(made: Traces, claim: Claim) -> None:
    """Report the attempt of a worker that was killed, which cannot do so itself.

    If it lives after all, it reports the same attempt as fenced.
    """
    turn, lost = claim.turn, claim.lost
    attempt = turn.attempt - 1
    attributes = {
        **_attributes(turn),
        n.ATTEMPT: attempt,
        n.OUTCOME: LOST,
        n.REPORTED_BY: "successor",
    }
    if lost is not None and lost.worker is not None:
        attributes[n.WORKER] = lost.worker
    began = claim.now if lost is None or lost.at is None else lost.at
    span = _start(made, turn, attempt, attributes, began)
    span.fail(LOST)
    span.end(max(began, claim.now - (claim.waited or 0.0)))


def _attributes(turn: Turn) -> dict[str, Any]:
    attributes = {
        n.AGENT: turn.agent,
        n.CONVERSATION: turn.conversation_id,
        n.SESSION: turn.conversation_id,
        n.TURN: turn.turn_id,
    }
    if turn.parent_id is not None:
        attributes[n.PARENT] = turn.parent_id
    return attributes
