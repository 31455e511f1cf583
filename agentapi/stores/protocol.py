"""What a store does, cut by who uses it. `TurnStore` is the whole; two classes implement it.

Every method that changes something is one atomic transition, and may be repeated: a repeat answers
as the first call did. Every method may raise `StoreUnavailable` when the store cannot be reached.
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
            For each turn that it was accepted, or the error to raise (`ConversationBusy`,
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

        Messages that it left in the history are taken out of it.

        Args:
            turn_id: The turn.
            operation: The caller's name for this call; a repeat with the same name does nothing.

        Returns:
            The wake-up to send now.

        Raises:
            TurnNotFound: There is no such turn.
            TurnNotRetryable: It has not failed.
            ConversationBusy: The inbox is full.
            TenantMismatch: The conversation was forgotten, and begun again by another tenant.
        """
        ...

    def turn(self, turn_id: str) -> Turn:
        """A turn as it stands; for the id of a merged message, the turn that it joined.

        Raises:
            TurnNotFound: There is no such turn.
        """
        ...

    def steps(self, turn_id: str) -> list[Step]:
        """The recorded steps of a turn: until it ends, and longer if it asked its client.

        Raises:
            UnreadableRecord: One of them cannot be read.
        """
        ...

    def past(self, turn_id: str) -> TurnPast:
        """A turn with its log, its journal and its calls that wait.

        Raises:
            TurnNotFound: There is no such turn.
            UnreadableRecord: Something of it cannot be read.
        """
        ...

    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        """Events of turns after the given numbers; waits until there are some.

        Args:
            cursors: For each turn id the number of the last event already seen; -1 for none.
            timeout: The longest wait in seconds; 0 does not wait.
            count: The most events of each turn; all when not given.
        """
        ...

    def interrupt(self) -> None:
        """Make a waiting `events` return immediately."""
        ...


class WorkerStore(Protocol):
    """For workers: they claim a turn, record its steps and end it, all under a lease.

    Writes raise `LeaseLost` when another worker owns the conversation by now.
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
            token: Names this claim; begins with the name of the claiming process.
            window: How much of the history is wanted.
            isolated: Whether the turn would run in a process of its own, as turns must that
                lost their worker.

        Returns:
            The claim; or that it was won and a record cannot be read; or why it was refused.
        """
        ...

    def record(self, lease: Lease, index: int, step: Step) -> Recorded:
        """Record step number `index`, counted from 0.

        Returns:
            What its worker should know: whether to cancel the turn, whether messages wait for it.

        Raises:
            LeaseLost: Another worker owns the conversation.
            JournalBehind: Steps before this one are missing.
        """
        ...

    def steer(self, lease: Lease, index: int) -> list[UserStep]:
        """Let the messages that wait to join the turn join it, as its steps from `index` on.

        Returns:
            The steps, in the order in which the messages were accepted.

        Raises:
            LeaseLost: Another worker owns the conversation.
            JournalBehind: Steps before this one are missing.
        """
        ...

    def hear_cancel(self, process: str, timeout: float) -> bool:
        """Wait until somebody cancels a turn that a process runs.

        Words may be lost: `renew` tells the same.

        Args:
            process: What the process's claim tokens begin with.
            timeout: The longest wait in seconds.

        Returns:
            Whether there is something to look for.
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
            delay: Seconds until the sweep dispatches the turn, for one that this worker cannot run
                and another might; 0 when the caller dispatches it itself.

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
            failures: How often the model call that it waits for has failed.
            steps: Number of recorded steps, which identifies that call.
            reason: What kind of thing it waits for, a `WaitKind`; also told by the turn's event.
            names: Names of what it waits for. After a failure, `rouse` wakes it by them.
            lasted: Seconds since the first of the failures; None without one.

        Returns:
            Whether it is parked; false when somebody asked to cancel it.

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
            Which batches, counted from 0, were not taken, because their shard of a cluster is away.
        """
        ...


class SweepStore(Protocol):
    """For the sweep and the watchdog: they keep turns moving that no worker continues."""

    @property
    def sharded(self) -> bool:
        """Whether a part of the store may be away while the others are there."""
        ...

    def expire(self, turn_id: str) -> Wakeup | None:
        """End a turn whose deadline passed before it began; leave any other turn as it is.

        Returns:
            The wake-up of the turn that may run now.
        """
        ...

    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        """Count the death of a process that ran a turn and nothing else.

        Args:
            conversation_id: The turn's conversation.
            turn_id: The turn.
            process: What the process's claim token began with; a repeat counts once.

        Returns:
            How many such deaths the turn has; None when the process did not have the turn.
        """
        ...

    def orphan(self, process: str) -> list[str]:
        """End the leases of a process that is known to be dead.

        Args:
            process: What the process's claim tokens begin with.

        Returns:
            The conversations that it had leases of; they are overdue now.
        """
        ...

    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        """Share the sweep with the fleet's other workers, and learn whether all of it is done.

        Args:
            candidate: The worker's name in the election.
            ttl: Seconds without a further call after which others take its groups, and the lead.
            swept: Whether it has swept its groups since its last call. So every worker sees when
                one of them does not.
        """
        ...

    def since_sweep(self) -> float | None:
        """See `Election.since_sweep`."""
        ...

    def agree(self, queues: int) -> int:
        """Record the number of queues when a worker starts, unless other workers have another.

        Args:
            queues: This worker's number.

        Returns:
            The fleet's number. It changes only while no worker leads and none has started in the
            last `NEW_FLEET` seconds.
        """
        ...

    def resign(self, candidate: str) -> None:
        """Leave the lead and the groups to other workers, so that they need not wait."""
        ...

    def overdue(
        self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)
    ) -> list[str | Errand]:
        """Conversations that should have moved by now, and errands that nobody has carried out.

        Args:
            limit: The most conversations, and the most errands, of each partition. Errands that
                this release does not know are left out.
            partitions: Where to look.
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
        """The wake-ups to send again, for those of the conversations that are still overdue.

        Args:
            conversation_ids: The conversations.
            claimed: For each partition how far its broker's queue has come (see `claimed`); no
                entry when the queue is empty. A wake-up that was sent less than a second before
                that point, or after it, is taken to be in the queue for up to `LONGEST_IN_LINE`
                seconds.
        """
        ...

    def rouse(self, provider: str) -> int:
        """Wake the parked turns that wait for a provider, because it is back.

        They wake one after the other, `ROUSED_A_SECOND` of them in a second, or all of them within
        `LONGEST_ROUSE` seconds.

        Returns:
            How many were woken.
        """
        ...

    def hasten(self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)) -> int:
        """Make turns due now that wait for a wake-up which the broker may have lost.

        Args:
            limit: The most turns of each partition.
            partitions: Where to look.

        Returns:
            How many turns are due now.
        """
        ...


class HistoryStore(Protocol):
    """Histories, and what is kept beside them."""

    def history(self, conversation_id: str) -> list[Message]:
        """All messages of a conversation, oldest first."""
        ...

    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of a conversation's images and files by name; missing names are left out."""
        ...

    def set_aside(self, turn_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of a failed turn's images and files that its conversation does not keep."""
        ...

    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        """Messages by position, from `start` to `stop`, both included; -1 is the newest."""
        ...

    def summary(self, conversation_id: str) -> Summary:
        """The summary of a conversation's beginning."""
        ...

    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        """Store a summary of the first `stop` messages, made from the one of the first `start`.

        Returns:
            Whether it was stored; not if the history was reset, or another summary was faster.
        """
        ...

    def reset(self, conversation_id: str) -> int:
        """Start a conversation's history over; returns how many messages it had."""
        ...


class TurnStore(ProducerStore, WorkerStore, SweepStore, HistoryStore, BacklogStore, Protocol):
    """Conversations and turns, and every transition between their states.

    Attributes:
        calls: Calls that wait for decisions and other turns.
        conversations: Conversations outside of their turns.
        data: The data of a person or tenant, for backups and deletions.
        hooks: Ends that hooks are to be told of.
        lists: Lists of turns and conversations, and the ends of turns.
    """

    conversations: ConversationStore
    data: DataStore
    hooks: HookStore
    lists: ListStore

    def check_protocol(self) -> None:
        """Check that this release may work beside those that use the store already.

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
