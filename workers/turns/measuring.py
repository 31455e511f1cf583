"""Metrics of turns: at their claim, at the end of each attempt, and at their end."""

from __future__ import annotations

import time
from typing import Final

from agentapi.broker.wire import queue_of_partition
from agentapi.ids import partition_of
from agentapi.metrics import recorder
from agentapi.metrics.catalog import (
    ATTEMPT_DURATION,
    ATTEMPTS,
    DISPATCH_WAIT,
    INBOX_WAIT,
    TURN_DURATION,
    TURNS_ENDED,
    UNKNOWN,
)
from agentapi.metrics.pace import pace
from agentapi.stores import Claim, ClaimCause, Ending, Unreadable
from agentapi.turns import ToolStep, TurnStatus
from workers.turns.claimed import ClaimedTurn
from workers.turns.summary import Summary

REPEATED: Final = "repeated"
"""The cause of an attempt whose claim was repeated because the first answer was lost."""


def claimed(claim: Claim, queues: int) -> None:
    """Record that a turn was claimed.

    Args:
        claim: The claim.
        queues: How many queues the fleet has.
    """
    metrics = recorder()
    if not metrics.on:
        return
    metrics.count(ATTEMPTS, cause_of(claim))
    if claim.waited is None:
        return
    queue = queue_of_partition(partition_of(claim.lease.conversation_id), queues)
    metrics.observe(DISPATCH_WAIT, claim.waited, queue)
    if claim.cause is ClaimCause.FIRST:
        behind = claim.now - claim.waited - claim.turn.created_at
        metrics.observe(INBOX_WAIT, behind, claim.turn.agent)


def cause_of(claim: Claim) -> str:
    """Why a turn was claimed, as a label."""
    match claim.cause:
        case None:
            return REPEATED
        case ClaimCause.WOKEN:
            return _woken_by(claim)
        case cause:
            return cause.value


def _woken_by(claim: Claim) -> str:
    if claim.turn.failures:
        return "provider_wait"
    calls = claim.calls
    # The recorded steps show that this woke an earlier attempt.
    done = {step.message.call_id for step in claim.steps if isinstance(step, ToolStep)}
    for answers, cause in (
        (calls.children, "children"),
        (calls.outputs, "client"),
        (calls.decisions, "approval"),
    ):
        if answers.keys() - done:
            return cause
    return "provider_wait"


def attempt_ended(turn: ClaimedTurn, summary: Summary) -> None:
    """Record that a worker released a turn, with the status in the summary."""
    metrics = recorder()
    if metrics.on:
        seconds = time.monotonic() - turn.began
        agent = turn.claim.turn.agent
        metrics.observe(ATTEMPT_DURATION, seconds, agent, str(summary.get("status", UNKNOWN)))


def turn_ended(turn: ClaimedTurn, ending: Ending) -> None:
    """Record that the end of a turn was written."""
    _count(ending)
    metrics = recorder()
    if not metrics.on:
        return
    stored = turn.claim.turn
    metrics.count(TURNS_ENDED, stored.agent, ending.status.value, _reason(ending))
    # Up to the claim by Redis's clock, and from there on by this machine's.
    before = turn.claim.now - stored.created_at
    seconds = before + time.monotonic() - turn.began
    metrics.observe(TURN_DURATION, seconds, stored.agent, ending.status.value)


def unreadable_ended(fault: Unreadable, ending: Ending) -> None:
    """Record that a turn was ended because this release cannot read it."""
    _count(ending)
    agent = UNKNOWN if fault.turn is None else fault.turn.agent
    recorder().count(TURNS_ENDED, agent, ending.status.value, _reason(ending))


def _count(ending: Ending) -> None:
    pace.add(ended=1, failed=int(ending.status is TurnStatus.FAILED))


def _reason(ending: Ending) -> str:
    return ending.error.code if ending.error is not None else ending.status.value
