"""What the transitions of a store are given, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message, Usage
from agentapi.errors import ConversationBusy, TenantMismatch, UnreadableRecord
from agentapi.stores.lease import Lease, Wakeup
from agentapi.turns import (
    CallBook,
    EventType,
    Step,
    Turn,
    TurnError,
    TurnStatus,
)
from agentapi.turns.budget import Spent

LONGEST_IN_LINE: Final = 60.0
"""Seconds for which a wake-up is taken to wait in a queue that holds messages."""

LONGEST_GRACE: Final = 600.0
"""Seconds; a dispatch that no claim answers is repeated at least so often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The answer to an enqueue.

    Attributes:
        turn_id: The turn that will answer: the new one, or the one that it was merged into.
        wakeup: What to send now, if anything; not always the new turn's.
        created: Whether this call made a turn.
    """

    turn_id: str
    wakeup: Wakeup | None
    created: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A won claim: the lease, the turn, and what the agent loop starts from.

    Attributes:
        steps: The journal.
        history: Messages before the turn, as many as the window asked for.
        calls: What has become of calls that waited.
        answering: The agent that the conversation goes on with instead of the turn's own.
        spent: What the conversation's turns have spent.
        summary: Of the conversation's beginning, with how many messages there are.
        calibration: Tokens that the provider counts for one that is estimated.
        now: The store's time.
    """

    lease: Lease
    turn: Turn
    steps: Sequence[Step]
    history: Sequence[Message]
    calls: CallBook = field(default_factory=CallBook)
    answering: str | None = None
    spent: Spent = field(default_factory=Spent)
    summary: Summary = field(default_factory=Summary)
    calibration: float = 1.0
    now: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A claim that was won, of a turn that this release cannot run: a record of it, or of its
    history, is of a newer release or broken.

    The lease is held: whoever claimed ends the turn (`commit`), or hands it back for a while
    (`release` with a delay), so that a newer worker may take it.

    Attributes:
        error: What cannot be read, and what to do.
        turn: None when it is the turn itself.
        attempt: How often it was claimed.
        deferrals: How often it was handed back with a delay.
    """

    lease: Lease
    error: UnreadableRecord
    turn: Turn | None
    attempt: int
    deferrals: int


Refused: TypeAlias = ConversationBusy | TenantMismatch


class RefusalReason(StrEnum):
    """Why a wake-up found nothing to do."""

    MISSING = "missing"
    ENDED = "ended"
    WAITING = "waiting"
    PARKED = "parked"
    LEASED = "leased"
    SUSPECT = "suspect"
    """It lost its worker: only a process that runs nothing else may claim it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A claim that was not won, and how the turn stands (None when it is gone, or unreadable)."""

    reason: RefusalReason
    turn: Turn | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Perished:
    """A turn whose process died: how often by now, and the wake-up to send."""

    deaths: int
    wakeup: Wakeup


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a turn ends.

    Attributes:
        status: `COMPLETED`, `FAILED` or `CANCELLED`.
        messages: What enters the history, all together; without a reply, only if the turn's
            `on_abort` is ``keep`` by then.
        usage: Tokens of all attempts' recorded steps.
        steps: Model responses and tool results.
        spent: What limits of the conversation count, turns below included.
        calibration: Tokens that the provider counted for one that was estimated, if it did.
        error: Why it failed, for `FAILED`.
        answered_by: The agent that replied.
        handed_over: Whether the conversation goes on with that agent.
        structured: Whether the reply is JSON of the agent's `output_type`.
    """

    status: TurnStatus
    messages: Sequence[Message] = ()
    usage: Usage = field(default_factory=Usage)
    steps: int = 0
    spent: Spent = field(default_factory=Spent)
    calibration: float | None = None
    error: TurnError | None = None
    answered_by: str | None = None
    handed_over: bool = False
    structured: bool = False


class CancelOutcome(StrEnum):
    """What a cancellation did."""

    CANCELLED = "cancelled"
    """The turn is cancelled."""
    REQUESTED = "requested"
    """It has begun; its worker stops it at its next beat, or the next one that takes it."""
    ENDED = "ended"
    """It had ended before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """What a cancellation did, and the wake-up to send now, if any."""

    outcome: CancelOutcome
    wakeup: Wakeup | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """The answer to a beat: whether the lease is still held, whether to cancel the turn."""

    held: bool
    cancel: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Election:
    """The answer to a candidate.

    Attributes:
        elected: Whether it is the one that sweeps.
        since_sweep: Seconds since the end of the last complete sweep of any worker; None before
            the first.
    """

    elected: bool
    since_sweep: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEvent:
    """An event to be numbered by the store."""

    type: EventType
    data: Mapping[str, Any]
