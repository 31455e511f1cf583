"""Arguments and results of the store's transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from agentapi.conversation.compaction import Summary
from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import AssistantMessage, Message, Usage
from agentapi.errors import ConversationBusy, TenantMismatch, UnreadableRecord
from agentapi.stores.conversations import Place
from agentapi.stores.lease import Lease, Wakeup
from agentapi.turns import (
    CallBook,
    EventType,
    PendingCall,
    Step,
    Turn,
    TurnError,
    TurnStatus,
)
from agentapi.turns.budget import Spent
from agentapi.turns.marks import Mark

LONGEST_IN_LINE: Final = 60.0
"""Seconds for which a wake-up is assumed to wait in a non-empty queue."""

NEW_FLEET: Final = 10.0
"""Seconds after a worker's start during which it may not have been elected yet."""

LEADS: Final = 0
"""The group whose worker leads."""

LONGEST_GRACE: Final = 600.0
"""Maximum seconds between two dispatches that no claim answers."""

ROUSED_A_SECOND: Final = 50
LONGEST_ROUSE: Final = 30.0
"""How many turns that waited for a provider wake per second when it is back, and the maximum
seconds in which all of them wake, however many they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A message that was accepted.

    Attributes:
        turn_id: The turn that will answer: the new one, or the one that it was merged into.
        wakeup: The wake-up to send now, if any; it may be another turn's.
        created: Whether this call created a turn.
    """

    turn_id: str
    wakeup: Wakeup | None
    created: bool


class ClaimCause(StrEnum):
    """Why a turn was claimed."""

    FIRST = "first"
    LEASE_EXPIRED = "lease_expired"
    """It lost its worker."""
    WORKER_STOPPED = "worker_stopped"
    """A worker handed it back."""
    WOKEN = "woken"
    """What it was parked for has arrived."""
    RETRIED = "retried"
    """It had failed, and was retried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LostClaim:
    """The claim of a worker that was lost.

    Attributes:
        at: When it was made, by the store's clock; None if an older release made it.
        worker: The worker's name.
    """

    at: float | None
    worker: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A won claim: the lease, the turn, and what the agent loop starts from.

    Attributes:
        steps: The recorded steps.
        history: Messages before the turn, as many as the window requests.
        calls: Outcomes of calls that waited.
        answering: The agent that the conversation was handed over to, if any.
        spent: What the conversation's turns have spent.
        summary: The summary of the conversation's beginning, and the number of all messages.
        calibration: How many tokens the provider counts for one estimated token.
        contexts: How many tokens models accept, as learned by the conversation, by
            ``provider:model``.
        now: The store's time.
        cause: Why it was claimed; None if this answer repeats an earlier one.
        waited: Seconds for which the turn was ready before the claim; None under the same condition
            as `cause`.
        lost: The claim before this one, if its worker was lost.
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
    contexts: Mapping[str, int] = field(default_factory=dict)
    now: float = 0.0
    # Not compared: they are for metrics and traces, and a repeated answer lacks them.
    cause: ClaimCause | None = field(default=None, compare=False)
    waited: float | None = field(default=None, compare=False)
    lost: LostClaim | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A claim that succeeded for a turn that this release cannot run: a record of the turn, or of
    its history, comes from a newer release or is broken.

    The caller holds the lease. It ends the turn (`commit`), or hands it back with a delay
    (`release`), so that a newer worker may take it.

    Attributes:
        error: What cannot be read, and what to do.
        turn: The turn; None when its own record cannot be read.
        attempt: How many times the turn was claimed.
        deferrals: How many times it was handed back with a delay.
    """

    lease: Lease
    error: UnreadableRecord
    turn: Turn | None
    attempt: int
    deferrals: int


Refused: TypeAlias = ConversationBusy | TenantMismatch


class RefusalReason(StrEnum):
    """Why a claim was refused."""

    MISSING = "missing"
    ENDED = "ended"
    WAITING = "waiting"
    PARKED = "parked"
    LEASED = "leased"
    SUSPECT = "suspect"
    """The turn lost its worker: only a process that runs no other turn may claim it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A claim that was refused, and the turn; None when the turn is gone or unreadable."""

    reason: RefusalReason
    turn: Turn | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Perished:
    """How many times a turn's own process has died, and the wake-up to send."""

    deaths: int
    wakeup: Wakeup


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a turn ends.

    Attributes:
        status: `COMPLETED`, `FAILED` or `CANCELLED`.
        messages: The messages that enter the history, atomically. For a turn without a reply, they
            enter only if its `on_abort`, or for a failed turn its `on_failure`, is ``keep`` when it
            ends.
        usage: Tokens of the recorded steps of all attempts.
        steps: Number of model responses and tool results.
        spent: Usage that counts towards the conversation's limits, including child turns.
        calibration: How many tokens the provider counted for one estimated token; None without a
            count.
        contexts: What the conversation learned about its models' contexts; None for no change.
        error: Why it failed, for `FAILED`.
        answered_by: The agent that replied.
        handed_over: Whether that agent answers the conversation from now on.
        structured: Whether the reply is JSON of the agent's `output_type`.
        refused: Whether the turn's own messages are the cause. Then they enter the history only if
            `on_abort` is ``keep``, regardless of `on_failure`.
        last_step: The response that ended the turn, if it was not recorded; for the turn's log.
    """

    status: TurnStatus
    messages: Sequence[Message] = ()
    usage: Usage = field(default_factory=Usage)
    steps: int = 0
    spent: Spent = field(default_factory=Spent)
    calibration: float | None = None
    contexts: Mapping[str, int] | None = None
    error: TurnError | None = None
    answered_by: str | None = None
    handed_over: bool = False
    structured: bool = False
    refused: bool = False
    last_step: Step | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped, for `COMPLETED` with a reply."""
        last = self.messages[-1] if self.messages else None
        replied = self.status is TurnStatus.COMPLETED and isinstance(last, AssistantMessage)
        return last.finish_reason if replied else None  # type: ignore[union-attr]


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnPast:
    """The stored past of a turn.

    Attributes:
        turn: The turn in its current state.
        marks: Its log, oldest first.
        steps: Its recorded steps, while its journal is kept.
        pending: Its waiting calls.
        now: The store's time, in seconds since 1970.
        place: The last message of the history when the turn ended, if the turn left no messages
            there; at position -1 if the history was empty.
    """

    turn: Turn
    marks: Sequence[Mark]
    steps: Sequence[Step]
    pending: Sequence[PendingCall]
    now: float
    place: Place | None = None


class CancelOutcome(StrEnum):
    """The result of a cancellation."""

    CANCELLED = "cancelled"
    """The turn is cancelled."""
    REQUESTED = "requested"
    """It is running: its worker, or the next one, is told to stop it. It may still complete
    first."""
    ENDED = "ended"
    """Too late: it had ended already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """The result of a cancellation, and the wake-up to send now, if any."""

    outcome: CancelOutcome
    wakeup: Wakeup | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """The answer to a recorded step.

    Attributes:
        cancel: Whether the turn's cancellation was requested.
        steered: Whether messages wait to join the turn.
    """

    cancel: bool = False
    steered: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """The answer to a renewal: whether the lease is still held, and whether to cancel the turn."""

    held: bool
    cancel: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Election:
    """The result of an election.

    Attributes:
        groups: The groups of partitions that the candidate sweeps (see `agentapi.stores.groups`).
        since_sweep: Seconds since the last sweep of the group that has gone longest without one;
            None while a group has never been swept.
    """

    groups: frozenset[int]
    since_sweep: float | None

    @property
    def leads(self) -> bool:
        """Whether the candidate is the lead worker."""
        return LEADS in self.groups


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEvent:
    """An event that the store will number."""

    type: EventType
    data: Mapping[str, Any]
