"""Errors of the stores, with the same texts for every store."""

from __future__ import annotations

from typing import Any

from agentapi.decoding.records import PROTOCOL
from agentapi.decoding.shown import shown
from agentapi.errors import (
    AgentAPIError,
    CallNotPending,
    ConfigurationError,
    ConversationBusy,
    DeadlineExceeded,
    JournalBehind,
    LeaseLost,
    StoreUnavailable,
    TenantMismatch,
    TurnNotFound,
    TurnNotRetryable,
)
from agentapi.ids import PARTITIONS
from agentapi.stores.lease import Lease
from agentapi.stores.missing import Missing
from agentapi.turns import Decision, Turn


def busy(conversation_id: str, length: int) -> ConversationBusy:
    """A full inbox."""
    return ConversationBusy(
        f"the conversation has {length} turns that have not ended, which is the limit "
        "(AGENTAPI_INBOX_LIMIT): wait for some of them to end, or raise the limit; this message "
        "was not accepted",
        conversation_id=conversation_id,
    )


def rejected(conversation_id: str, length: int) -> ConversationBusy:
    """A busy conversation and `on_busy="reject"`."""
    return ConversationBusy(
        f"the conversation has {length} turns that have not ended and on_busy is 'reject': wait "
        "for them, or choose another policy; this message was not accepted",
        conversation_id=conversation_id,
    )


def not_failed(turn_id: str, status: str) -> TurnNotRetryable:
    """A retry of a turn that has not failed."""
    return TurnNotRetryable(
        f"turn {turn_id} is {status}: only a failed turn can be retried; enqueue a new one",
        turn_id=turn_id,
    )


def other_tenant(conversation_id: str) -> TenantMismatch:
    """A conversation that belongs to another tenant."""
    return TenantMismatch(
        "the conversation belongs to another tenant: open it with the tenant_id that it was "
        "created with, or choose another conversation_id",
        conversation_id=conversation_id,
    )


def no_turn(turn_id: str) -> TurnNotFound:
    """A turn that does not exist."""
    return TurnNotFound(
        f"there is no turn {shown(turn_id)}: it was never accepted on this Redis, or it "
        "ended longer than AGENTAPI_TURN_RETENTION ago",
        turn_id=turn_id,
    )


def lost(lease: Lease) -> LeaseLost:
    """A write under a lease that is lost."""
    return LeaseLost(
        f"epoch {lease.epoch} of turn {lease.turn_id} is no longer current: another worker has "
        "taken over the conversation; nothing was written"
    )


def no_call(turn_id: str, call_id: str, status: str | None = None) -> CallNotPending:
    """A decision about a call that is not waiting for one."""
    why = f": the turn is {status}" if status else ""
    return CallNotPending(
        f"turn {turn_id} has no pending call {shown(call_id)}{why}; TurnHandle.pending() and "
        "`agentapi pending` list the pending calls",
        turn_id=turn_id,
    )


def decided_otherwise(turn_id: str, call_id: str, decision: Decision) -> CallNotPending:
    """A second, different decision about the same call."""
    by = f" by {decision.by}" if decision.by else ""
    return CallNotPending(
        f"call {shown(call_id)} of turn {turn_id} was already {decision.verdict}{by}: a decision "
        "is final",
        turn_id=turn_id,
    )


def answered_otherwise(turn_id: str, call_id: str) -> CallNotPending:
    """A second, different output of the same call."""
    return CallNotPending(
        f"call {shown(call_id)} of turn {turn_id} already has another output: an output is final, "
        "and the output of a call whose time is up is an error",
        turn_id=turn_id,
    )


def missed_deadline(turn: Turn | None = None, now: float = 0.0) -> DeadlineExceeded:
    """A turn that did not end by its deadline.

    Args:
        turn: The turn, to say what it waited for.
        now: The store's time.
    """
    waits = None if turn is None else turn.waiting_for
    if waits is not None and waits.since is not None:
        return DeadlineExceeded(
            f"turn did not end by its deadline: it waited for {' or '.join(waits.names)}, "
            f"unavailable for {max(0.0, now - waits.since):.0f} s ({_counted(waits.failures)}); "
            "run it again with retry() when the provider is back, or give enqueue(deadline=...) "
            "more time"
        )
    return DeadlineExceeded(
        "turn did not end by its deadline: give enqueue(deadline=...) or the tool's timeout=... "
        "more time, or the agents less to do"
    )


def lists_are_off() -> ConfigurationError:
    """A list that is not kept."""
    return ConfigurationError(
        "lists are turned off: set AGENTAPI_LIST_LIMIT to the number of entries to keep, the same "
        "for every process. Turns that were accepted before are not listed"
    )


def _counted(failures: int) -> str:
    return "1 failure" if failures == 1 else f"{failures} failures"


def newer_fleet(version: bytes) -> ConfigurationError:
    """A release that is older than the protocol that the fleet writes."""
    return ConfigurationError(
        f"this Redis is used with version {version.decode(errors='replace')!r} of the turn "
        f"protocol, but this release knows version {PROTOCOL}: upgrade agentapi here, or use "
        "another Redis"
    )


def behind(lease: Lease, index: int, length: int) -> JournalBehind:
    """A step whose predecessors are missing."""
    return JournalBehind(
        f"turn {lease.turn_id} has {length} recorded steps, so step {index} would leave a gap: "
        "record the missing steps first",
        length=length,
    )


def unexpected(script: str, reply: Any) -> AgentAPIError:
    """A script's answer that this release does not know."""
    kind = reply[0] if isinstance(reply, list) and reply else type(reply).__name__
    return AgentAPIError(
        f"script {script!r} answered {kind!r}, which this release does not know: run the same "
        "release of agentapi everywhere"
    )


def not_complete(missing: Missing) -> StoreUnavailable:
    """A list with a part that does not answer."""
    # For its clients, the gateway removes sentences that name a command.
    return StoreUnavailable(
        f"the list would be incomplete: {missing.partitions} of {PARTITIONS} partitions do not "
        "answer. Repeat the call in a few seconds. Meanwhile turns of one conversation can be "
        "listed. `agentapi top` names the shard."
    )
