"""The state of the in-memory store, and operations that several transitions share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window
from agentapi.ids import partition_of_turn
from agentapi.memory.in_memory import InMemoryMemory
from agentapi.settings import Settings
from agentapi.signals import LeaseLost
from agentapi.stores.calls import Errand, ErrandKind
from agentapi.stores.conversations import Place
from agentapi.stores.in_memory.shares import Shares
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.lists import TurnEnd
from agentapi.stores.refusals import lost, no_turn
from agentapi.turns import (
    ChildReply,
    ChildTurn,
    ClientCall,
    ClientOutput,
    Decision,
    Event,
    EventType,
    Question,
    Step,
    Turn,
    TurnStatus,
)
from agentapi.turns.budget import Spent
from agentapi.turns.marks import MarkKind, added, mark_json

T = TypeVar("T")

OPERATION_TTL: Final = 3600.0
"""Seconds for which an operation's answer is kept for retries of the operation."""


@dataclass
class HeldLease:
    """A conversation's lease."""

    token: str
    turn_id: str
    epoch: int
    expires: float
    batch: int = 0


@dataclass
class Conversation:
    """A conversation, its inbox and its lease."""

    memory: InMemoryMemory
    created_at: float = 0.0
    updated_at: float = 0.0
    agent: str | None = None
    turns: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    inbox: list[str] = field(default_factory=list)
    lease: HeldLease | None = None
    epoch: int = 0
    generation: int = 0
    due: float | None = None
    answering: dict[str, str] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    summary: Summary = field(default_factory=Summary)
    calibration: float = 1.0
    contexts: Mapping[str, int] = field(default_factory=dict)

    def summary_now(self) -> Summary:
        """The summary, with the current number of messages."""
        return replace(self.summary, total=len(self.memory.load(Window())))


@dataclass
class StoredCalls:
    """A turn's waiting calls: the content of its hash of calls in Redis."""

    questions: dict[str, Question] = field(default_factory=dict)
    expires: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    children: dict[str, tuple[ChildTurn, ...]] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    replies: dict[str, ChildReply] = field(default_factory=dict)
    client: dict[str, ClientCall] = field(default_factory=dict)
    outputs: dict[str, ClientOutput] = field(default_factory=dict)

    @property
    def client_waits(self) -> bool:
        """Whether a call waits for its client."""
        return not self.client.keys() <= self.outputs.keys()


@dataclass
class StoredTurn:
    """A turn, with the data by which its transitions answer repeats."""

    turn: Turn
    steps: list[Step] = field(default_factory=list)
    calls: StoredCalls = field(default_factory=StoredCalls)
    events: list[Event] = field(default_factory=list)
    committed: str | None = None
    released: str | None = None
    claimed_at: float | None = None
    perished: str | None = None
    following: Wakeup | None = None
    dispatches: int = 0
    in_line: float | None = None
    ready: float | None = None
    failures_at: int = 0
    parked: str | None = None
    kept: bool = False
    retried: str | None = None
    counted: Spent = field(default_factory=Spent)
    woken: str | None = None
    untold: int = 0
    successor: str | None = None
    merged: list[str] = field(default_factory=list)
    steers: str | None = None
    place: Place | None = None
    log: str = ""
    """See `agentapi.turns.marks`."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Bytes of the images and files of failed turns, kept for retries."""

    def note(self, at: float, kind: MarkKind, *data: Any) -> None:
        """Add a line to its log."""
        self.log = added(self.log, self.turn.created_at, at, mark_json(kind, data))

    def lose(self) -> None:
        """Record that it lost its worker and must run alone from now on."""
        losses = self.turn.losses + 1
        self.turn = replace(self.turn, status=TurnStatus.QUEUED, suspect=True, losses=losses)

    @property
    def never_claimed(self) -> bool:
        """Whether no worker has claimed it yet."""
        return self.turn.status is TurnStatus.QUEUED and self.turn.attempt == 0


def errand_of(kind: ErrandKind, turn_id: str, owner_id: str) -> Errand:
    """An errand about a turn, in the partition of its owner."""
    return Errand(kind=kind, turn_id=turn_id, partition=partition_of_turn(owner_id))


class State:
    """All conversations and turns of a store, under one lock.

    Attributes:
        changed: The lock; notified with every event.
        now: The store's clock.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.now = clock
        self.changed = threading.Condition(threading.RLock())
        self.conversations: dict[str, Conversation] = {}
        self.turns: dict[str, StoredTurn] = {}
        self.merged: dict[str, str] = {}
        self.errands: dict[Errand, float] = {}
        self.left: dict[str, list[Message | None]] = {}
        self.answers: dict[tuple[str, str], tuple[float, Any]] = {}
        self.claimed: dict[int, float] = {}
        self.told: set[str] = set()
        self.waiting: dict[str, set[str]] = {}
        self.shares = Shares()
        self.ends: deque[TurnEnd] = deque(maxlen=settings.ends_limit)
        self.ended = 0
        self.hooked: dict[str, float] = {}
        self.untold: dict[str, float] = {}
        self.agreed: tuple[int, float] | None = None

    def open(
        self,
        conversation_id: str,
        user_id: str | None,
        tenant_id: str | None,
        agent: str | None = None,
    ) -> Conversation | None:
        """The conversation, created if it does not exist; None if it belongs to another tenant.

        Args:
            conversation_id: The conversation.
            user_id: The user that a new conversation begins with.
            tenant_id: The tenant.
            agent: The agent that its newest turn is for; unchanged when not given.
        """
        conversation = self.conversations.get(conversation_id)
        if conversation is None:
            memory = InMemoryMemory(
                conversation_id=conversation_id, user_id=user_id, tenant_id=tenant_id
            )
            conversation = Conversation(memory, created_at=self.now())
            self.conversations[conversation_id] = conversation
        if conversation.memory.tenant_id != tenant_id:
            return None
        conversation.updated_at = self.now()
        conversation.agent = agent or conversation.agent
        return conversation

    def answer_before(self, owner: str, operation: str) -> Any:
        """The stored answer of an operation on the same owner; None if there is none."""
        kept = self.answers.get((owner, operation))
        return kept[1] if kept is not None and kept[0] > self.now() else None

    def keep_answer(self, owner: str, operation: str, answer: T) -> T:
        """Keep an answer for repeats of its operation, and return it."""
        now = self.now()
        for known, (expires, _) in list(self.answers.items()):
            if expires > now:
                break
            del self.answers[known]
        self.answers[owner, operation] = (now + OPERATION_TTL, answer)
        return answer

    def head(self, conversation: Conversation) -> str | None:
        """The first turn of the inbox. Turns that no longer exist would never end, so they are
        removed."""
        inbox = conversation.inbox
        if not inbox or inbox[0] in self.turns:
            return inbox[0] if inbox else None
        while inbox and inbox[0] not in self.turns:
            inbox.pop(0)
        conversation.due = self.now() if inbox else None
        return inbox[0] if inbox else None

    def joined(self, turn_id: str) -> StoredTurn:
        """The turn, or the one that its message joined.

        Raises:
            TurnNotFound: There is no such turn.
        """
        entry = self.turns.get(self.merged.get(turn_id, turn_id))
        if entry is None:
            raise no_turn(turn_id)
        return entry

    def entry(self, lease: Lease) -> StoredTurn:
        """The turn of a lease, which may have been lost.

        Raises:
            LeaseLost: The turn no longer exists.
        """
        entry = self.turns.get(lease.turn_id)
        if entry is None:
            raise lost(lease)
        return entry

    def wakeup(self, turn_id: str) -> Wakeup:
        """The wake-up of a turn."""
        turn = self.turns[turn_id].turn
        return Wakeup(conversation_id=turn.conversation_id, turn_id=turn.turn_id, agent=turn.agent)

    def leave(self, kind: ErrandKind, turn_id: str, owner_id: str, delay: float) -> None:
        """Leave an errand about a turn, in the partition of its owner."""
        self.errands[errand_of(kind, turn_id, owner_id)] = self.now() + delay

    def leave_errands(self, entry: StoredTurn, delay: float) -> None:
        """Leave the errands of an ending turn: tell its parent, cancel its children."""
        turn = entry.turn
        if turn.parent_id is not None:
            self.leave(ErrandKind.DELIVER, turn.turn_id, turn.turn_id, delay)
        for child in entry.calls.awaited:
            self.leave(ErrandKind.CANCEL, child, turn.turn_id, 0)
        for kind in (ErrandKind.START, ErrandKind.EXPIRE):
            self.errands.pop(errand_of(kind, turn.turn_id, turn.turn_id), None)

    def emit(self, entry: StoredTurn, kind: EventType, data: Mapping[str, object]) -> None:
        """Append an event with its number, and wake waiting readers."""
        number = len(entry.events)
        entry.events.append(Event(number=number, type=kind, data=dict(data)))
        entry.turn = replace(entry.turn, last_event=number)
        self.changed.notify_all()

    def owns(self, lease: Lease) -> bool:
        """Whether the lease is still held."""
        conversation = self.conversations.get(lease.conversation_id)
        held = conversation.lease if conversation else None
        return (
            held is not None
            and lease.turn_id in self.turns
            and held.turn_id == lease.turn_id
            and (held.epoch, held.token) == (lease.epoch, lease.token)
        )

    def next_epoch(self, conversation: Conversation) -> int:
        """The epoch of a new owner: it grows with every claim, and with the clock."""
        return max(conversation.epoch + 1, int(self.now() * 1000))

    def refuse(self, lease: Lease, script: str) -> LeaseLost:
        """Record that a write by a worker that lost the turn was refused; returns the error."""
        entry = self.turns.get(lease.turn_id)
        if entry is not None:
            data = [script, round(lease.epoch - entry.turn.created_at * 1000)]
            if mark_json(MarkKind.REFUSED, data).decode() + "]" not in entry.log:
                entry.note(self.now(), MarkKind.REFUSED, *data)
        return lost(lease)

    def owned(
        self, lease: Lease, script: str | None = None
    ) -> tuple[StoredTurn, Conversation, HeldLease]:
        """The turn, the conversation and the stored lease for a caller's lease.

        Args:
            lease: The caller's lease.
            script: Name of the write, for the turn's log if it is refused.

        Raises:
            LeaseLost: The lease is no longer held.
        """
        if not self.owns(lease):
            raise lost(lease) if script is None else self.refuse(lease, script)
        conversation = self.conversations[lease.conversation_id]
        held = conversation.lease
        if held is None:
            raise lost(lease)
        return self.turns[lease.turn_id], conversation, held
