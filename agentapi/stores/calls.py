"""The protocol of calls that wait without a worker: approvals, child turns, and errands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentapi.stores.lease import Lease, Wakeup
from agentapi.turns import (
    Answers,
    CallBook,
    ChildReply,
    ChildTurn,
    Decision,
    HeldCalls,
    PendingCall,
)


class Suspended(StrEnum):
    """The result of a request to wait."""

    PARKED = "parked"
    """The turn waits, and its lease is released."""
    CANCELLED = "cancelled"
    """A caller asked to cancel the turn; its worker still holds the lease."""


class ErrandKind(StrEnum):
    """A kind of work that one partition has left for another."""

    START = "start"
    """Enqueue the turn's children."""
    DELIVER = "deliver"
    """Tell the turn's parent that the turn has ended."""
    EXPIRE = "expire"
    """The turn's deadline has passed: end the turn if it has not begun."""
    CANCEL = "cancel"
    """The turn's parent has ended without waiting for it: cancel the turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Errand:
    """Work that crosses partitions. It stays in the due index until it is done.

    Attributes:
        kind: The work to do.
        turn_id: The turn to do it for.
        partition: The partition whose due index holds the errand.
    """

    kind: ErrandKind
    turn_id: str
    partition: int


class CallStore(Protocol):
    """Transitions of calls that wait. Each is atomic and may be repeated."""

    def suspend(self, lease: Lease, held: HeldCalls) -> Suspended | CallBook:
        """Let the turn wait without a worker: running -> parked.

        Returns:
            Whether the turn waits; or the state of the calls, if something that it would wait for
            has already arrived and the worker can continue.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def decide(self, turn_id: str, call_id: str, decision: Decision) -> Wakeup | None:
        """Decide about a call; returns the wake-up to send now.

        Raises:
            TurnNotFound: There is no such turn.
            CallNotPending: The call is not waiting for a decision, or has a different one.
        """
        ...

    def answer(self, turn_id: str, answers: Answers) -> Wakeup | None:
        """Answer calls of a turn, all or nothing; returns the wake-up to send now.

        The turn continues when no call waits for its client any longer.

        Raises:
            TurnNotFound: There is no such turn.
            CallNotPending: One of the calls is not waiting, or has a different answer.
        """
        ...

    def pending(self, turn_id: str) -> list[PendingCall]:
        """The turn's unanswered calls, in the order in which they were asked.

        Raises:
            TurnNotFound: There is no such turn.
        """
        ...

    def children(self, turn_id: str) -> list[tuple[ChildTurn, bool]]:
        """The turn's children, each with whether the turn still waits for it."""
        ...

    def deliver(self, parent_id: str, reply: ChildReply) -> Wakeup | None:
        """Tell a turn how its child ended; returns the wake-up to send when it was the last one."""
        ...

    def settle(self, errands: Sequence[Errand]) -> None:
        """Remove errands that were carried out."""
        ...
