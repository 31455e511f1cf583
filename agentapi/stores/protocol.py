"""What a turn store is: the turn protocol as one small seam, two implementations behind it.

Every method is one atomic transition, may be repeated, and raises `LeaseLost` when the caller
does not own the conversation any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window
from agentapi.stores.answers import (
    Accepted,
    Cancellation,
    Claim,
    Election,
    Ending,
    NewEvent,
    Perished,
    Refusal,
    Refused,
    Renewal,
    Unreadable,
)
from agentapi.stores.calls import CallStore, Errand
from agentapi.stores.conversations import ConversationStore
from agentapi.stores.lease import Lease, Wakeup
from agentapi.turns import (
    Event,
    NewTurn,
    Step,
    Turn,
)


class TurnStore(Protocol):
    """Conversations and turns, and every transition between their states."""

    @property
    def calls(self) -> CallStore:
        """Transitions of calls that wait for decisions and other turns."""
        ...

    @property
    def conversations(self) -> ConversationStore:
        """Changes and reads of conversations outside of their turns."""
        ...

    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        """Accept turns, each for itself, in this order.

        Returns:
            For each turn that it was accepted, or the error that says why not
            (`ConversationBusy`, `TenantMismatch`), for the caller to raise.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        ...

    def claim(
        self,
        conversation_id: str,
        turn_id: str,
        *,
        owner: str,
        token: str,
        window: Window,
        isolated: bool = False,
    ) -> Claim | Unreadable | Refusal:
        """Take the right to run a turn. The same token again gets the same lease.

        Args:
            conversation_id: Of the turn.
            turn_id: The turn.
            owner: The worker's name, for people.
            token: Names this claim; begins with the name of the claiming process.
            window: How much of the history is wanted.
            isolated: Whether the turn would run in a process of its own, as turns must that
                lost their worker.

        Returns:
            The claim; or that it was won and a record cannot be read; or why it was not won.
        """
        ...

    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        """Count the death of a process that ran a turn and nothing else.

        Args:
            conversation_id: Of the turn.
            turn_id: The turn.
            process: What the process's claim token began with; a repeat counts once.

        Returns:
            How often that happened to the turn; None when the process did not have it.
        """
        ...

    def record(self, lease: Lease, index: int, step: Step) -> bool:
        """Keep step number `index`, counted from 0.

        Returns:
            Whether somebody asked to cancel the turn.

        Raises:
            LeaseLost: Another worker owns the conversation.
            JournalBehind: Steps before this one are not there.
        """
        ...

    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        """End the turn; returns the turn that may run now.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def release(self, lease: Lease, delay: float = 0) -> None:
        """Hand the turn back at its last recorded step.

        Args:
            lease: The turn's.
            delay: Seconds until the sweep dispatches it, for a turn that this worker cannot run
                and another one might; 0 when the caller does so at once.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def park(self, lease: Lease, delay: float, *, failures: int, steps: int, reason: str) -> bool:
        """Let the turn wait `delay` seconds without a worker.

        Args:
            lease: The turn's.
            delay: Seconds until the sweep dispatches it.
            failures: Failures of the model call that it waits for.
            steps: Number of recorded steps, which says which call that is.
            reason: A short word for the turn's event.

        Returns:
            Whether it is parked; false when somebody asked to cancel it.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def expire(self, turn_id: str) -> Wakeup | None:
        """End a turn whose deadline has passed before it began; returns the turn that may run now.

        Any other turn is left as it is.
        """
        ...

    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        """Run a failed turn again from its last recorded step; returns the wake-up to send now.

        Args:
            turn_id: The turn.
            operation: The caller's name for this call; a repeat does nothing.

        Raises:
            TurnNotFound: There is none.
            TurnNotRetryable: It has not failed, or left its messages in the history.
            ConversationBusy: The inbox is full.
            TenantMismatch: The conversation was forgotten, and begun again by another tenant.
        """
        ...

    def orphan(self, process: str) -> list[str]:
        """End the leases of a process that is certainly dead.

        Args:
            process: What the process's claim tokens begin with.

        Returns:
            The conversations whose lease it had; they are overdue now.
        """
        ...

    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """Keep leases, all in one round trip."""
        ...

    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> None:
        """Append events, all in one round trip; those of lost leases are dropped.

        Args:
            batches: Lease, number of the batch under this lease counted from 1, events.
        """
        ...

    def cancel(self, turn_id: str) -> Cancellation:
        """Cancel a turn.

        Raises:
            TurnNotFound: There is none.
        """
        ...

    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        """Be, or stay, the fleet's sweeper; and learn whether anybody sweeps.

        Args:
            candidate: The worker's name in the election.
            ttl: Seconds for which it is elected.
            swept: Whether it has completed a sweep since its last call. One that stays elected
                and completes none is seen by all.
        """
        ...

    def since_sweep(self) -> float | None:
        """Seconds since the end of the last complete sweep; None before the first."""
        ...

    def resign(self, candidate: str) -> None:
        """Stop being the sweeper, so that another need not wait for the election's end."""
        ...

    def overdue(self, limit: int = 1000) -> list[str | Errand]:
        """Conversations that should have moved by now, errands that nobody has carried out.

        Args:
            limit: At most so many conversations, and so many errands, of each partition. Errands
                that this release does not know are left out.
        """
        ...

    def claimed(self) -> dict[int, float]:
        """How far the wake-ups of each partition have been claimed.

        Returns:
            Of each partition the time, in seconds, at which the newest wake-up that was claimed
            would have been overdue. A broker's queue is first in, first out.
        """
        ...

    def redispatch(
        self, conversation_ids: Iterable[str], claimed: Mapping[int, float]
    ) -> list[Wakeup]:
        """The wake-ups to send again, of those overdue conversations that still are.

        Args:
            conversation_ids: Which.
            claimed: Of each partition how far its broker's queue has come (see `claimed`); none
                when the queue is empty. A wake-up that was sent and that this has not overtaken by
                a second is taken to be in line, for up to `LONGEST_IN_LINE` seconds.
        """
        ...

    def hasten(self, limit: int = 1000) -> int:
        """Make turns due now that wait for a wake-up which the broker may have lost.

        Args:
            limit: At most so many of each partition.

        Returns:
            How many.
        """
        ...

    def turn(self, turn_id: str) -> Turn:
        """A turn as it stands; for the id of a message that was merged, the turn it joined.

        Raises:
            TurnNotFound: There is none.
        """
        ...

    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        """Events of turns after the given numbers (-1 for all); waits for the first.

        Args:
            cursors: Turn ids, each with the number of the last event already seen.
            timeout: Longest wait in seconds; 0 does not wait.
            count: Most events of each turn; all when not given.
        """
        ...

    def interrupt(self) -> None:
        """Make a waiting `events` return at once."""
        ...

    def history(self, conversation_id: str) -> list[Message]:
        """All messages of a conversation, oldest first."""
        ...

    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of a conversation's images and files by their names; those that are there."""
        ...

    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        """Messages by position, from `start` to `stop`, both included."""
        ...

    def summary(self, conversation_id: str) -> Summary:
        """The summary of a conversation's beginning."""
        ...

    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        """Keep a summary of the first `stop` messages, made from the one of the first `start`.

        Returns:
            Whether it is kept; not if the history is another one by now, or another was faster.
        """
        ...

    def reset(self, conversation_id: str) -> int:
        """Begin a conversation's history anew; returns how many messages it had."""
        ...

    def check_protocol(self) -> None:
        """See that this release may work beside those that use the store already.

        Raises:
            ConfigurationError: The fleet has moved on to a protocol that this release cannot read.
            StoreUnavailable: The store cannot be reached.
        """
        ...

    def ping(self) -> None:
        """Raises:
        StoreUnavailable: The store cannot be reached.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
