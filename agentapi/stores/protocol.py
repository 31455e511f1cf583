"""The protocols of a store, divided by who uses them. `TurnStore` combines them; two classes
implement it.

Every method that changes something is one atomic transition, and may be repeated: a repeat returns
the first answer. Every method may raise `StoreUnavailable` when the store cannot be reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window
from agentapi.ids import PARTITIONS
from agentapi.stores.answers import (
    Accepted,
    Cancellation,
    Claim,
    Election,
    Ending,
    NewEvent,
    Perished,
    Recorded,
    Refusal,
    Refused,
    Renewal,
    TurnPast,
    Unreadable,
)
from agentapi.stores.backlog import BacklogStore
from agentapi.stores.calls import CallStore, Errand
from agentapi.stores.conversations import ConversationStore
from agentapi.stores.data import DataStore
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.lists import ListStore
from agentapi.stores.telling import HookStore
from agentapi.turns import (
    Event,
    NewTurn,
    Step,
    Turn,
    UserStep,
)


class ProducerStore(Protocol):
    """For producers: they enqueue turns, follow them, cancel them and retry them."""

    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        """Accept turns in this order, each independently of the others.

        Returns:
            For each turn, that it was accepted, or the error to raise (`ConversationBusy`,
            `TenantMismatch`).
        """
        ...

    def cancel(self, turn_id: str) -> Cancellation:
        """Cancel a turn.

        Raises:
            TurnNotFound: There is no such turn.
        """
        ...

    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        """Run a failed turn again from its last recorded step.

        Messages that it left in the history are removed.

        Args:
            turn_id: The turn.
            operation: Identifies this call; a repeat with the same value does nothing.

        Returns:
            The wake-up to send now.

        Raises:
            TurnNotFound: There is no such turn.
            TurnNotRetryable: It has not failed.
            ConversationBusy: The inbox is full.
            TenantMismatch: The conversation was deleted and created again by another tenant.
        """
        ...

    def turn(self, turn_id: str) -> Turn:
        """The current state of a turn; for the id of a merged message, the turn that it joined.

        Raises:
            TurnNotFound: There is no such turn.
        """
        ...

    def steps(self, turn_id: str) -> list[Step]:
        """The recorded steps of a turn: available until it ends, and longer if it called client
        tools.

        Raises:
            UnreadableRecord: One of them cannot be read.
        """
        ...

    def past(self, turn_id: str) -> TurnPast:
        """A turn with its log, journal and waiting calls.

        Raises:
            TurnNotFound: There is no such turn.
            UnreadableRecord: A part of it cannot be read.
        """
        ...

    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        """Events of turns after the given numbers; waits for the first of them.

        Args:
            cursors: For each turn id the number of the last event already seen; -1 for none.
            timeout: Maximum wait in seconds; 0 does not wait.
            count: Maximum events of each turn; all when not given.
        """
        ...

    def interrupt(self) -> None:
        """Make a waiting `events` return immediately."""
        ...


class WorkerStore(Protocol):
    """For workers: they claim a turn, record its steps and end it, all under a lease.

    Writes raise `LeaseLost` if another worker owns the conversation.
    """

    calls: CallStore

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
        """Take the right to run a turn. The same token gets the same lease again.

        Args:
            conversation_id: The turn's conversation.
            turn_id: The turn.
            owner: The worker's name, for people.
            token: Identifies this claim; begins with the name of the claiming process.
            window: How much of the history to load.
            isolated: Whether the turn would run in a separate process, as turns that lost their
                worker must.

        Returns:
            The claim; or `Unreadable` if it succeeded but a record cannot be read; or the reason
            why it was refused.
        """
        ...

    def record(self, lease: Lease, index: int, step: Step) -> Recorded:
        """Record step number `index`, counted from 0.

        Returns:
            Whether to cancel the turn, and whether messages wait for it.

        Raises:
            LeaseLost: Another worker owns the conversation.
            JournalBehind: Steps before this one are missing.
        """
        ...

    def steer(self, lease: Lease, index: int) -> list[UserStep]:
        """Let the waiting messages join the turn, as its steps from `index` on.

        Returns:
            The steps, in the order in which the messages were accepted.

        Raises:
            LeaseLost: Another worker owns the conversation.
            JournalBehind: Steps before this one are missing.
        """
        ...

    def hear_cancel(self, process: str, timeout: float) -> bool:
        """Wait until a turn that a process runs is cancelled.

        Notifications may be lost; `renew` reports the same.

        Args:
            process: The prefix of the process's claim tokens.
            timeout: Maximum wait in seconds.

        Returns:
            Whether there is a cancellation to look for.
        """
        ...

    def tell_cancel(self, process: str) -> None:
        """End a process's `hear_cancel`, or its next one."""
        ...

    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        """End the turn; returns the wake-up of the turn that may run now.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def release(self, lease: Lease, delay: float = 0) -> None:
        """Hand the turn back at its last recorded step.

        Args:
            lease: The turn's lease.
            delay: Seconds until the sweep dispatches the turn, if this worker cannot run it and
                another might; 0 if the caller dispatches it itself.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def park(
        self,
        lease: Lease,
        delay: float,
        *,
        failures: int,
        steps: int,
        reason: str,
        names: Sequence[str] = (),
        lasted: float | None = None,
    ) -> bool:
        """Let the turn wait without a worker.

        Args:
            lease: The turn's lease.
            delay: Seconds until the sweep dispatches the turn.
            failures: How many times the model call that it waits for has failed.
            steps: Number of recorded steps, which identifies that call.
            reason: What it waits for, a `WaitKind`; also part of the turn's event.
            names: Names of the providers or servers that it waits for, by which `rouse` wakes it.
            lasted: Seconds since the first of the failures; None without one.

        Returns:
            Whether it is parked; false if its cancellation was requested.

        Raises:
            LeaseLost: Another worker owns the conversation.
        """
        ...

    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """Renew leases, all in one round trip."""
        ...

    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> list[int]:
        """Append events, all in one round trip; events of lost leases are dropped.

        Args:
            batches: The lease, the number of the batch under this lease counted from 1, the events.

        Returns:
            Which batches, counted from 0, were not written because their cluster shard is
            unavailable.
        """
        ...


class SweepStore(Protocol):
    """For the sweep and the watchdog: they keep turns moving that no worker continues."""

    @property
    def sharded(self) -> bool:
        """Whether a part of the store may be unavailable while the rest is not."""
        ...

    def expire(self, turn_id: str) -> Wakeup | None:
        """End a turn whose deadline passed before it began. Other turns do not change.

        Returns:
            The wake-up of the turn that may run now.
        """
        ...

    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        """Count the death of a process that ran a turn and nothing else.

        Args:
            conversation_id: The turn's conversation.
            turn_id: The turn.
            process: The prefix of the process's claim token; a repeat counts once.

        Returns:
            How many such deaths the turn has; None if the process did not run the turn.
        """
        ...

    def orphan(self, process: str) -> list[str]:
        """End the leases of a process that is known to be dead.

        Args:
            process: The prefix of the process's claim tokens.

        Returns:
            The conversations whose leases it held; they are overdue now.
        """
        ...

    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        """Share the sweep with the fleet's other workers, and learn whether every group is swept.

        Args:
            candidate: The worker's name in the election.
            ttl: Seconds without a further call after which others take its groups, and the lead.
            swept: Whether it has swept its groups since its last call, so that all workers notice
                if one does not.
        """
        ...

    def since_sweep(self) -> float | None:
        """See `Election.since_sweep`."""
        ...

    def agree(self, queues: int) -> int:
        """Record the number of queues when a worker starts, unless other workers have a different
        one.

        Args:
            queues: This worker's number.

        Returns:
            The fleet's number. It changes only while no worker leads and none has started in the
            last `NEW_FLEET` seconds.
        """
        ...

    def resign(self, candidate: str) -> None:
        """Give up the lead and the groups, so that other workers need not wait for them."""
        ...

    def overdue(
        self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)
    ) -> list[str | Errand]:
        """Conversations that should have made progress by now, and errands that have not been
        carried out.

        Args:
            limit: Maximum conversations, and maximum errands, of each partition. Errands that this
                release does not know are left out.
            partitions: The partitions to search.
        """
        ...

    def claimed(self) -> dict[int, float]:
        """How far the wake-ups of each partition have been claimed.

        Returns:
            For each partition the time, in seconds, at which the newest claimed wake-up would have
            been overdue. A broker's queue is first in, first out.
        """
        ...

    def redispatch(
        self, conversation_ids: Iterable[str], claimed: Mapping[int, float]
    ) -> list[Wakeup]:
        """The wake-ups to send again for conversations that are still overdue.

        Args:
            conversation_ids: The conversations.
            claimed: For each partition how far its broker's queue has come (see `claimed`); no
                entry when the queue is empty. A wake-up that was sent less than a second before
                that point, or after it, is assumed to be in the queue for up to `LONGEST_IN_LINE`
                seconds.
        """
        ...

    def rouse(self, provider: str) -> int:
        """Wake the parked turns that wait for a provider that is back.

        They wake one after the other: `ROUSED_A_SECOND` of them per second, or all within
        `LONGEST_ROUSE` seconds.

        Returns:
            How many were woken.
        """
        ...

    def hasten(self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)) -> int:
        """Make turns due now whose wake-up the broker may have lost.

        Args:
            limit: Maximum turns of each partition.
            partitions: The partitions to search.

        Returns:
            How many turns are due now.
        """
        ...


class HistoryStore(Protocol):
    """Histories, with their summaries and blobs."""

    def history(self, conversation_id: str) -> list[Message]:
        """All messages of a conversation, oldest first."""
        ...

    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of a conversation's images and files by name; missing names are left out."""
        ...

    def set_aside(self, turn_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of a failed turn's images and files that are not kept in its conversation."""
        ...

    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        """Messages by position, from `start` to `stop` inclusive; -1 is the newest."""
        ...

    def summary(self, conversation_id: str) -> Summary:
        """The summary of a conversation's beginning."""
        ...

    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        """Store a summary of the first `stop` messages, which extends the one of the first `start`.

        Returns:
            Whether it was stored; false if the history was reset, or another summary was stored
            first.
        """
        ...

    def reset(self, conversation_id: str) -> int:
        """Clear a conversation's history; returns how many messages it had."""
        ...


class TurnStore(ProducerStore, WorkerStore, SweepStore, HistoryStore, BacklogStore, Protocol):
    """Conversations and turns, and every transition between their states.

    Attributes:
        calls: Calls that wait for decisions and other turns.
        conversations: Conversations outside of their turns.
        data: The data of a user or tenant, for backups and deletions.
        hooks: Ends for which hooks must be called.
        lists: Lists of turns and conversations, and the ends of turns.
    """

    conversations: ConversationStore
    data: DataStore
    hooks: HookStore
    lists: ListStore

    def check_protocol(self) -> None:
        """Check that this release may work with those that already use the store.

        Raises:
            ConfigurationError: The fleet writes a version of the protocol that this release cannot
                read.
        """
        ...

    def ping(self) -> None:
        """Raise `StoreUnavailable` when the store cannot be reached."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
