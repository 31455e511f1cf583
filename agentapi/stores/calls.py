"""The seam of calls that wait without a worker: approvals, child turns, and errands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentapi.stores.lease import Lease, Wakeup
from agentapi.turns import (
    CallBook,
    ChildReply,
    ChildTurn,
    Decision,
    HeldCalls,
    PendingCall,
)


class Suspended(StrEnum):
    """What became of a wish to wait."""

    PARKED = "parked"
    """The turn waits; the lease is gone."""
    CANCELLED = "cancelled"
    """Somebody asked to cancel the turn; its worker still has it."""


class ErrandKind(StrEnum):
    """What one partition owes another."""

    START = "start"
    """The turn's children are to be enqueued."""
    DELIVER = "deliver"
    """The turn has ended and its parent is to be told."""
    EXPIRE = "expire"
    """The turn must have ended by now: it is to be ended if it has not begun."""
    CANCEL = "cancel"
    """The turn's parent has ended without it: it is to be cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Errand:
    """Work that crosses partitions. It stays in the due index until it is done.

    Attributes:
        kind: What is to be done.
        turn_id: About which turn.
        partition: In whose due index it lies.
    """

    kind: ErrandKind
    turn_id: str
    partition: int


class CallStore(Protocol):
    """Transitions of calls that wait; each atomic, and repeatable."""

    def suspend(self, lease: Lease, held: HeldCalls) -> Suspended | CallBook:
        """Let the turn wait without a worker: running -> parked.

        Returns:
            Whether it waits; or, when some of what it waits for is there already, the calls as
            they stand, for the worker to go on at once.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def decide(self, turn_id: str, call_id: str, decision: Decision) -> Wakeup | None:
        """Answer a question; returns the wake-up to send now.

        Raises:
            TurnNotFound: There is no such turn.
            CallNotPending: The call waits for no decision, or has another one.
        """
        ...

    def pending(self, turn_id: str) -> list[PendingCall]:
        """The turn's questions that nobody has answered, in the order in which they were asked.

        Raises:
            TurnNotFound: There is no such turn.
        """
        ...

    def children(self, turn_id: str) -> list[tuple[ChildTurn, bool]]:
        """The turn's children, and whether it still waits for each."""
        ...

    def deliver(self, parent_id: str, reply: ChildReply) -> Wakeup | None:
        """Tell a turn how its child ended; returns the wake-up when that was the last."""
        ...

    def settle(self, errands: Sequence[Errand]) -> None:
        """Strike errands that were carried out."""
        ...
