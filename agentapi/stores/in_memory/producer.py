"""The producers' part of the store, in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from agentapi.conversation.messages import Usage
from agentapi.conversation.window import Window
from agentapi.stores.answers import Accepted, Cancellation, CancelOutcome, Refused, TurnPast
from agentapi.stores.calls import ErrandKind
from agentapi.stores.in_memory.calls import pending_of
from agentapi.stores.in_memory.endings import BY_CANCEL
from agentapi.stores.in_memory.part import InMemoryPart
from agentapi.stores.in_memory.state import Conversation, State, StoredTurn
from agentapi.stores.lease import Wakeup
from agentapi.stores.protocol import ProducerStore
from agentapi.stores.refusals import busy, not_failed, other_tenant, rejected
from agentapi.turns import Event, EventType, NewTurn, OnAbort, OnBusy, Step, Turn, TurnStatus
from agentapi.turns.marks import MarkKind, marks_of


class InMemoryProducer(InMemoryPart, ProducerStore):
    """The `ProducerStore` of eager mode."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._interrupted = False

    @override
    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        with self._state.changed:
            return [self._enqueue_one(turn) for turn in turns]

    def _enqueue_one(self, new: NewTurn) -> Accepted | Refused:
        known = self._state.turns.get(self._state.merged.get(new.turn_id, new.turn_id))
        if known is not None:
            return self._known(new, known)
        conversation = self._state.open(new.conversation_id, new.user_id, new.tenant_id, new.agent)
        if conversation is None:
            return other_tenant(new.conversation_id)
        self._state.head(conversation)
        length = len(conversation.inbox)
        if length and new.on_busy is OnBusy.REJECT:
            return rejected(new.conversation_id, length)
        if length and new.on_busy is OnBusy.MERGE and self._merge(new, conversation.inbox[-1]):
            return Accepted(turn_id=conversation.inbox[-1], wakeup=None, created=False)
        if length >= self._settings.inbox_limit:
            return busy(new.conversation_id, length)
        deadline, now = self._deadline(new), self._state.now()
        turn = Turn.accepted(new, deadline_at=deadline, now=now)
        self._state.turns[new.turn_id] = StoredTurn(turn)
        if deadline is not None:
            delay = deadline - now
            self._state.leave(ErrandKind.EXPIRE, new.turn_id, new.turn_id, delay)
        conversation.memory.keep(new.blobs)
        if length and new.on_busy is OnBusy.STEER:
            self._steer(new, conversation.inbox[0])
        conversation.inbox.append(new.turn_id)
        wakeup = None
        if length == 0:
            conversation.due = self._state.now() + self._settings.dispatch_grace
            wakeup = self._state.wakeup(new.turn_id)
        elif new.on_busy in (OnBusy.INTERRUPT, OnBusy.REPLACE):
            interrupts = new.on_busy is OnBusy.INTERRUPT
            head = self._state.turns[conversation.inbox[0]]
            left = OnAbort.KEEP if interrupts else OnAbort.DROP
            head.turn = replace(head.turn, on_abort=left, on_failure=None)
            wakeup = self._endings.cancel(head, conversation, by_worker=interrupts).wakeup
            self._state.turns[new.turn_id].woken = wakeup.turn_id if wakeup else None
        return Accepted(turn_id=new.turn_id, wakeup=wakeup, created=True)

    def _steer(self, new: NewTurn, head_id: str) -> None:
        """Mark the message for the running turn, if it may join it."""
        head = self._state.turns[head_id]
        begun = head.turn.attempt > 0 and not head.turn.cancel_requested
        alike = (head.turn.agent, head.turn.user_id) == (new.agent, new.user_id)
        for name in ("context", "options", "client_tools"):
            given = getattr(new, name)
            alike = alike and (given is None or given == getattr(head.turn, name))
        undated = not new.timeout and not new.deadline_at
        if begun and alike and undated and not new.attachments and not new.prior:
            self._state.turns[new.turn_id].steers = head_id
            head.turn = replace(head.turn, steered=True)

    def _known(self, new: NewTurn, known: StoredTurn) -> Accepted | Refused:
        """The answer to a repeat, regardless of the conversation's current state."""
        turn = known.turn
        if turn.tenant_id != new.tenant_id:
            return other_tenant(new.conversation_id)
        if turn.turn_id != new.turn_id:
            return Accepted(turn_id=turn.turn_id, wakeup=None, created=False)
        conversation = self._state.conversations.get(turn.conversation_id)
        inbox = conversation.inbox if conversation else []
        first = turn.status is TurnStatus.QUEUED and inbox[:1] == [turn.turn_id]
        woken = self._state.turns.get(turn.turn_id if first else known.woken or "")
        waits = woken is not None and not woken.turn.status.ended
        wakeup = self._state.wakeup(woken.turn.turn_id) if woken and waits else None
        return Accepted(turn_id=turn.turn_id, wakeup=wakeup, created=False)

    def _deadline(self, new: NewTurn) -> float | None:
        own = self._state.now() + new.timeout if new.timeout else None
        return min((t for t in (own, new.deadline_at) if t is not None), default=None)

    def _merge(self, new: NewTurn, newest: str) -> bool:
        entry = self._state.turns.get(newest)
        if entry is None:
            return False
        turn = entry.turn
        waits = turn.status is TurnStatus.QUEUED and not turn.attempt and not turn.cancel_requested
        alike = (turn.agent, turn.user_id, turn.metadata, turn.stream, turn.context) == (
            *(new.agent, new.user_id, dict(new.metadata), new.stream, new.context),
        ) and (turn.on_abort, turn.on_failure, turn.client_tools) == (
            *(new.on_abort, new.on_failure, new.client_tools),
        )
        joined = f"{turn.input}\n\n{new.input}"
        plain = not (turn.attachments or new.attachments or turn.prior or new.prior)
        plain = plain and entry.steers is None
        alike = alike and turn.options == new.options
        fits = len(joined.encode()) <= self._settings.max_message_bytes
        undated = turn.deadline_at is None and not new.timeout and not new.deadline_at
        if not (waits and alike and plain and undated and fits):
            return False
        entry.turn = replace(turn, input=joined)
        self._state.merged[new.turn_id] = newest
        return True

    @override
    def cancel(self, turn_id: str) -> Cancellation:
        with self._state.changed:
            entry = self._state.joined(turn_id)
            if entry.committed == BY_CANCEL:
                return Cancellation(outcome=CancelOutcome.CANCELLED, wakeup=entry.following)
            if entry.turn.status.ended:
                return Cancellation(outcome=CancelOutcome.ENDED)
            conversation = self._state.conversations[entry.turn.conversation_id]
            keeps = entry.turn.on_abort is OnAbort.KEEP and entry.turn.attempt > 0
            return self._endings.cancel(entry, conversation, by_worker=keeps)

    @override
    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        with self._state.changed:
            entry = self._state.joined(turn_id)
            turn_id = entry.turn.turn_id
            if entry.retried != operation:
                self._queue_again(entry)
                entry.retried = operation
            conversation = self._state.conversations[entry.turn.conversation_id]
            head = conversation.inbox[:1] == [turn_id]
            waits = entry.turn.status is TurnStatus.QUEUED
            return self._state.wakeup(turn_id) if head and waits else None

    def _queue_again(self, entry: StoredTurn) -> None:
        turn = entry.turn
        if turn.status is not TurnStatus.FAILED:
            raise not_failed(turn.turn_id, turn.status)
        known = self._state.conversations.get(turn.conversation_id)
        if known is not None:
            self._state.head(known)
            if len(known.inbox) >= self._settings.inbox_limit:
                raise busy(turn.conversation_id, len(known.inbox))
        conversation = self._state.open(turn.conversation_id, turn.user_id, turn.tenant_id)
        if conversation is None:
            raise other_tenant(turn.conversation_id)
        if entry.kept:
            self._take_back(turn.turn_id, conversation)
        conversation.memory.keep(entry.blobs)
        entry.blobs, entry.kept, entry.place = {}, False, None
        entry.committed = entry.perished = entry.woken = None
        entry.following = None
        entry.dispatches = 0
        entry.turn = replace(
            turn,
            status=TurnStatus.QUEUED,
            messages=(),
            usage=Usage(),
            error=None,
            cancel_requested=False,
            failures=0,
            deadline_at=None,
            suspect=False,
            waiting_for=None,
            deaths=0,
            deferrals=0,
            ended_at=None,
        )
        ended = int(((turn.ended_at or 0.0) - turn.created_at) * 1000)
        entry.note(self._state.now(), MarkKind.RETRIED, ended)
        self._state.emit(entry, EventType.RETRIED, {})
        if not conversation.inbox:
            conversation.due = self._state.now() + self._settings.dispatch_grace
        conversation.inbox.append(turn.turn_id)

    def _take_back(self, turn_id: str, conversation: Conversation) -> None:
        """Remove a turn's messages from the history, and from the count of its summary."""
        messages = conversation.memory.load(Window())
        for position in range(len(messages) - 1, -1, -1):
            if messages[position].turn_id == turn_id:
                conversation.memory.remove(position)
                covered = conversation.summary.covered
                if position < covered:
                    conversation.summary = replace(conversation.summary, covered=covered - 1)

    @override
    def turn(self, turn_id: str) -> Turn:
        with self._state.changed:
            return self._state.joined(turn_id).turn

    @override
    def steps(self, turn_id: str) -> list[Step]:
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            return list(entry.steps) if entry is not None else []

    @override
    def past(self, turn_id: str) -> TurnPast:
        with self._state.changed:
            entry = self._state.joined(turn_id)
            return TurnPast(
                turn=entry.turn,
                marks=marks_of(entry.log, entry.turn.created_at),
                steps=tuple(entry.steps),
                pending=pending_of(entry),
                now=self._state.now(),
                place=entry.place,
            )

    @override
    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        deadline = time.monotonic() + timeout
        with self._state.changed:
            while True:
                found = {
                    turn_id: entry.events[number + 1 :][:count]
                    for turn_id, number in cursors.items()
                    if (entry := self._state.turns.get(turn_id)) and len(entry.events) > number + 1
                }
                remaining = deadline - time.monotonic()
                if found or remaining <= 0 or self._interrupted:
                    self._interrupted = self._interrupted and timeout <= 0
                    return found
                self._state.changed.wait(remaining)

    @override
    def interrupt(self) -> None:
        with self._state.changed:
            self._interrupted = True
            self._state.changed.notify_all()
