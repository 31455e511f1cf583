"""Why a turn is claimed, and since when it was ready."""

from __future__ import annotations

from agentapi.stores.answers import ClaimCause
from agentapi.stores.in_memory.state import Conversation, StoredTurn
from agentapi.turns import TurnStatus


def cause_of_claim(entry: StoredTurn, conversation: Conversation) -> ClaimCause:
    """Why a turn is claimed. Call this before the claim changes the turn."""
    turn = entry.turn
    if not turn.attempt:
        return ClaimCause.FIRST
    if turn.status is TurnStatus.RUNNING:
        return ClaimCause.LEASE_EXPIRED
    if turn.status is TurnStatus.PARKED:
        return ClaimCause.WOKEN
    # The previous claim's fence tells how that claim ended.
    if (entry.released or "").partition(":")[0] == str(conversation.epoch):
        return ClaimCause.WORKER_STOPPED
    return ClaimCause.LEASE_EXPIRED if turn.suspect else ClaimCause.RETRIED


def ready_since(entry: StoredTurn, conversation: Conversation, grace: float) -> float:
    """The time since which a turn at the head of its inbox can run, by the store's clock."""
    turn = entry.turn
    due = entry.in_line if entry.in_line is not None else conversation.due
    if entry.ready is not None:
        return entry.ready
    if turn.status is TurnStatus.PARKED:
        return (turn.wakes_at if turn.wakes_at is not None else due) or 0.0
    return (due or 0.0) - (grace if entry.never_claimed else 0.0)
