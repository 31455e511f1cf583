"""Turns in this process: the twin of the Redis store, for eager mode and tests.

The same transitions in the same order as the Lua scripts, each under one lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentapi.memory.in_memory import InMemoryMemory
from agentapi.messages import AssistantMessage, Message
from agentapi.settings import Settings
from agentapi.stores.base import (
    Accepted,
    Cancellation,
    CancelOutcome,
    Claim,
    Ending,
    Lease,
    NewEvent,
    Refusal,
    RefusalReason,
    Refused,
    Renewal,
    Wakeup,
)
from agentapi.stores.codec import ending_event, step_event
from agentapi.stores.refusals import busy, lost, no_turn, other_tenant
from agentapi.turns import Event, EventType, NewTurn, Step, Turn, TurnStatus
from agentapi.window import Window


@dataclass
class _Lease:
    token: str
    turn_id: str
    epoch: int
    expires: float
    batch: int = 0


@dataclass
class _Conversation:
    memory: InMemoryMemory
    inbox: list[str] = field(default_factory=list)
    lease: _Lease | None = None
    epoch: int = 0
    generation: int = 0
    due: float | None = None


@dataclass
class _Turn:
    turn: Turn
    steps: list[Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    committed: int | str | None = None
    released: int | None = None
    following: Wakeup | None = None
    dispatches: int = 0


class InMemoryTurnStore:
    """The `TurnStore` of eager mode. Nothing is kept beyond the process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._interrupted = False
        self._conversations: dict[str, _Conversation] = {}
        self._turns: dict[str, _Turn] = {}

    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        """See `TurnStore.enqueue`."""
        with self._changed:
            return [self._enqueue_one(turn) for turn in turns]

    def _enqueue_one(self, new: NewTurn) -> Accepted | Refused:
        conversation = self._open(new)
        if conversation is None:
            return other_tenant(new.conversation_id)
        known = self._turns.get(new.turn_id)
        if known is not None:
            waiting = known.turn.status is TurnStatus.QUEUED
            first = waiting and conversation.inbox[0] == new.turn_id
            wakeup = self._wakeup(new.turn_id) if first else None
            return Accepted(turn_id=new.turn_id, wakeup=wakeup, created=False)
        length = len(conversation.inbox)
        if length >= self._settings.inbox_limit:
            return busy(new.conversation_id, length)
        self._turns[new.turn_id] = _Turn(
            Turn(
                turn_id=new.turn_id,
                conversation_id=new.conversation_id,
                agent=new.agent,
                input=new.input,
                user_id=new.user_id,
                tenant_id=new.tenant_id,
                metadata=dict(new.metadata),
                stream=new.stream,
                status=TurnStatus.QUEUED,
                created_at=self._clock(),
            )
        )
        conversation.inbox.append(new.turn_id)
        if length == 0:
            conversation.due = self._clock() + self._settings.dispatch_grace
        wakeup = self._wakeup(new.turn_id) if length == 0 else None
        return Accepted(turn_id=new.turn_id, wakeup=wakeup, created=True)

    def _open(self, new: NewTurn) -> _Conversation | None:
        conversation = self._conversations.get(new.conversation_id)
        if conversation is None:
            memory = InMemoryMemory(
                conversation_id=new.conversation_id,
                user_id=new.user_id,
                tenant_id=new.tenant_id,
            )
            conversation = self._conversations[new.conversation_id] = _Conversation(memory)
        elif conversation.memory.tenant_id != new.tenant_id:
            return None
        return conversation

    def claim(
        self, conversation_id: str, turn_id: str, *, owner: str, token: str, window: Window
    ) -> Claim | Refusal:
        """See `TurnStore.claim`."""
        with self._changed:
            entry = self._turns.get(turn_id)
            if entry is None:
                return Refusal(reason=RefusalReason.MISSING, turn=None)
            conversation = self._conversations[conversation_id]
            lease = conversation.lease
            if entry.turn.status.ended:
                return Refusal(reason=RefusalReason.ENDED, turn=entry.turn)
            if conversation.inbox[0] != turn_id:
                return Refusal(reason=RefusalReason.WAITING, turn=entry.turn)
            now = self._clock()
            if lease is None or lease.token != token:
                if lease is not None and lease.expires > now:
                    return Refusal(reason=RefusalReason.LEASED, turn=entry.turn)
                conversation.epoch += 1
                expires = now + self._settings.lease_ttl
                lease = _Lease(token, turn_id, conversation.epoch, expires)
                conversation.lease, conversation.due = lease, expires
                self._start(entry, owner, now)
            return Claim(
                lease=Lease(
                    conversation_id=conversation_id,
                    turn_id=turn_id,
                    epoch=lease.epoch,
                    generation=conversation.generation,
                ),
                turn=entry.turn,
                steps=tuple(entry.steps),
                history=conversation.memory.load(window),
            )

    def _start(self, entry: _Turn, owner: str, now: float) -> None:
        attempt = entry.turn.attempt + 1
        entry.dispatches = 0
        entry.turn = replace(
            entry.turn,
            status=TurnStatus.RUNNING,
            attempt=attempt,
            worker=owner,
            started_at=entry.turn.started_at or now,
        )
        self._emit(entry, EventType.STARTED, {"attempt": attempt, "worker": owner})

    def record(self, lease: Lease, index: int, step: Step) -> bool:
        """See `TurnStore.record`."""
        with self._changed:
            entry, _, _ = self._owned(lease)
            if index > len(entry.steps):
                raise ValueError(f"step {index} after {len(entry.steps)} steps")
            if index == len(entry.steps):
                entry.steps.append(step)
                entry.turn = replace(entry.turn, steps=index + 1)
                self._emit(entry, EventType.STEP, step_event(index, step))
            return entry.turn.cancel_requested

    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        """See `TurnStore.commit`."""
        with self._changed:
            entry = self._turns[lease.turn_id]
            if entry.committed == lease.epoch:
                return entry.following
            entry, conversation, _ = self._owned(lease)
            if conversation.generation == lease.generation:
                conversation.memory.append(ending.messages)
            conversation.lease = None
            last = ending.messages[-1] if ending.messages else None
            replied = ending.status is TurnStatus.COMPLETED and isinstance(last, AssistantMessage)
            entry.turn = replace(
                entry.turn,
                messages=tuple(ending.messages),
                text=last.content if replied and last else None,
                usage=ending.usage,
                steps=ending.steps,
                error=ending.error,
            )
            return self._end(entry, conversation, ending.status, lease.epoch, ending_event(ending))

    def _end(
        self,
        entry: _Turn,
        conversation: _Conversation,
        status: TurnStatus,
        committed: int | str,
        data: Mapping[str, object],
    ) -> Wakeup | None:
        turn_id = entry.turn.turn_id
        was_head = conversation.inbox[0] == turn_id
        conversation.inbox.remove(turn_id)
        if was_head and conversation.inbox:
            conversation.due = self._clock() + self._settings.dispatch_grace
            entry.following = self._wakeup(conversation.inbox[0])
        elif was_head:
            conversation.due = None
        entry.steps.clear()
        entry.committed = committed
        entry.turn = replace(entry.turn, status=status, ended_at=self._clock())
        self._emit(entry, EventType(status.value), data)
        return entry.following

    def release(self, lease: Lease) -> None:
        """See `TurnStore.release`."""
        with self._changed:
            entry = self._turns[lease.turn_id]
            if entry.released == lease.epoch:
                return
            entry, conversation, _ = self._owned(lease)
            conversation.lease = None
            conversation.due = self._clock() + self._settings.dispatch_grace
            entry.released = lease.epoch
            entry.turn = replace(
                entry.turn, status=TurnStatus.QUEUED, handbacks=entry.turn.handbacks + 1
            )

    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """See `TurnStore.renew`."""
        with self._changed:
            return [self._renew_one(lease) for lease in leases]

    def _renew_one(self, lease: Lease) -> Renewal:
        if not self._owns(lease):
            return Renewal(held=False)
        entry, conversation, held = self._owned(lease)
        held.expires = conversation.due = self._clock() + self._settings.lease_ttl
        return Renewal(held=True, cancel=entry.turn.cancel_requested)

    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> None:
        """See `TurnStore.emit`."""
        with self._changed:
            for lease, number, events in batches:
                if not self._owns(lease):
                    continue
                entry, _, held = self._owned(lease)
                if held.batch < number:
                    held.batch = number
                    for event in events:
                        self._emit(entry, event.type, event.data)

    def cancel(self, turn_id: str) -> Cancellation:
        """See `TurnStore.cancel`."""
        with self._changed:
            entry = self._turns.get(turn_id)
            if entry is None:
                raise no_turn(turn_id)
            if entry.committed == "cancel":
                return Cancellation(outcome=CancelOutcome.CANCELLED, wakeup=entry.following)
            if entry.turn.status.ended:
                return Cancellation(outcome=CancelOutcome.ENDED)
            conversation = self._conversations[entry.turn.conversation_id]
            lease = conversation.lease
            mine = lease is not None and lease.turn_id == turn_id
            if lease is not None and mine and lease.expires > self._clock():
                entry.turn = replace(entry.turn, cancel_requested=True)
                return Cancellation(outcome=CancelOutcome.REQUESTED)
            if mine:
                conversation.epoch += 1
                conversation.lease = None
            following = self._end(entry, conversation, TurnStatus.CANCELLED, "cancel", {})
            return Cancellation(outcome=CancelOutcome.CANCELLED, wakeup=following)

    def elect(self, candidate: str, *, ttl: float) -> bool:
        """See `TurnStore.elect`. There is only one process."""
        return True

    def overdue(self, limit: int = 1000) -> list[str]:
        """See `TurnStore.overdue`."""
        with self._changed:
            now = self._clock()
            return [
                conversation_id
                for conversation_id, conversation in self._conversations.items()
                if conversation.due is not None and conversation.due <= now
            ][:limit]

    def redispatch(self, conversation_id: str) -> Wakeup | None:
        """See `TurnStore.redispatch`."""
        with self._changed:
            conversation = self._conversations[conversation_id]
            now = self._clock()
            if conversation.due is None or conversation.due > now:
                return None
            entry = self._turns[conversation.inbox[0]]
            entry.dispatches += 1
            conversation.due = now + self._settings.dispatch_grace * 2**entry.dispatches
            return self._wakeup(entry.turn.turn_id)

    def turn(self, turn_id: str) -> Turn:
        """See `TurnStore.turn`."""
        with self._changed:
            entry = self._turns.get(turn_id)
            if entry is None:
                raise no_turn(turn_id)
            return entry.turn

    def events(self, cursors: Mapping[str, int], timeout: float) -> dict[str, list[Event]]:
        """See `TurnStore.events`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = {
                    turn_id: self._turns[turn_id].events[number + 1 :]
                    for turn_id, number in cursors.items()
                    if turn_id in self._turns and len(self._turns[turn_id].events) > number + 1
                }
                remaining = deadline - time.monotonic()
                if found or remaining <= 0 or self._interrupted:
                    self._interrupted = self._interrupted and timeout <= 0
                    return found
                self._changed.wait(remaining)

    def interrupt(self) -> None:
        """See `TurnStore.interrupt`."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def history(self, conversation_id: str) -> list[Message]:
        """See `TurnStore.history`."""
        with self._changed:
            conversation = self._conversations.get(conversation_id)
            return list(conversation.memory.load(Window())) if conversation else []

    def reset(self, conversation_id: str) -> int:
        """See `TurnStore.reset`."""
        with self._changed:
            conversation = self._conversations.get(conversation_id)
            if conversation is None:
                return 0
            dropped = len(conversation.memory.messages)
            conversation.memory.reset()
            conversation.generation += 1
            return dropped

    def ping(self) -> None:
        """See `TurnStore.ping`."""

    def close(self) -> None:
        """See `TurnStore.close`."""
        self.interrupt()

    def _wakeup(self, turn_id: str) -> Wakeup:
        turn = self._turns[turn_id].turn
        return Wakeup(conversation_id=turn.conversation_id, turn_id=turn.turn_id, agent=turn.agent)

    def _emit(self, entry: _Turn, kind: EventType, data: Mapping[str, object]) -> None:
        number = len(entry.events)
        entry.events.append(Event(number=number, type=kind, data=dict(data)))
        entry.turn = replace(entry.turn, last_event=number)
        self._changed.notify_all()

    def _owns(self, lease: Lease) -> bool:
        held = self._conversations[lease.conversation_id].lease
        return held is not None and held.turn_id == lease.turn_id and held.epoch == lease.epoch

    def _owned(self, lease: Lease) -> tuple[_Turn, _Conversation, _Lease]:
        conversation = self._conversations[lease.conversation_id]
        held = conversation.lease
        if held is None or not self._owns(lease):
            raise lost(lease)
        return self._turns[lease.turn_id], conversation, held
