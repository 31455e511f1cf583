"""Turns in this process: the twin of the Redis store, for eager mode and tests.

The same transitions in the same order as the Lua scripts, each under one lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agentapi.conversation.messages import AssistantMessage
from agentapi.conversation.window import Window
from agentapi.ids import partition_of
from agentapi.settings import Settings
from agentapi.stores.answers import (
    Accepted,
    Claim,
    Ending,
    NewEvent,
    Refusal,
    RefusalReason,
    Refused,
    Renewal,
    Unreadable,
)
from agentapi.stores.calls import CallStore, ErrandKind
from agentapi.stores.conversations import ConversationStore
from agentapi.stores.in_memory.calls import InMemoryCalls, take_calls
from agentapi.stores.in_memory.conversations import InMemoryConversations
from agentapi.stores.in_memory.state import Conversation, HeldLease, State, StoredTurn
from agentapi.stores.in_memory.sweep import InMemorySweep
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.redis.codec import ending_event, parked_event, step_event
from agentapi.stores.refusals import (
    behind,
    busy,
    other_tenant,
    rejected,
)
from agentapi.turns import Event, EventType, NewTurn, OnAbort, OnBusy, Step, Turn, TurnStatus


class InMemoryTurnStore(InMemorySweep):
    """The `TurnStore` of eager mode. Nothing is kept beyond the process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        super().__init__(State(settings, clock))
        self.calls: CallStore = InMemoryCalls(settings, self._state)
        self.conversations: ConversationStore = InMemoryConversations(self._state)
        self._interrupted = False

    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        """See `TurnStore.enqueue`."""
        with self._state.changed:
            return [self._enqueue_one(turn) for turn in turns]

    def _enqueue_one(self, new: NewTurn) -> Accepted | Refused:
        known = self._state.turns.get(self._state.merged.get(new.turn_id, new.turn_id))
        if known is not None:
            return self._known(new, known)
        conversation = self._state.open(new.conversation_id, new.user_id, new.tenant_id)
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
        self._state.turns[new.turn_id] = StoredTurn(
            Turn(
                turn_id=new.turn_id,
                conversation_id=new.conversation_id,
                agent=new.agent,
                input=new.input,
                user_id=new.user_id,
                tenant_id=new.tenant_id,
                metadata=dict(new.metadata),
                stream=new.stream,
                on_abort=new.on_abort,
                status=TurnStatus.QUEUED,
                deadline_at=self._deadline(new),
                parent_id=new.parent_id,
                depth=new.depth,
                budget=new.budget,
                attachments=tuple(new.attachments),
                created_at=self._state.now(),
            )
        )
        deadline = self._deadline(new)
        if deadline is not None:
            delay = deadline - self._state.now()
            self._state.leave(ErrandKind.EXPIRE, new.turn_id, new.turn_id, delay)
        conversation.memory.keep(new.blobs)
        conversation.inbox.append(new.turn_id)
        wakeup = None
        if length == 0:
            conversation.due = self._state.now() + self._settings.dispatch_grace
            wakeup = self._state.wakeup(new.turn_id)
        elif new.on_busy in (OnBusy.INTERRUPT, OnBusy.REPLACE):
            interrupts = new.on_busy is OnBusy.INTERRUPT
            head = self._state.turns[conversation.inbox[0]]
            head.turn = replace(head.turn, on_abort=OnAbort.KEEP if interrupts else OnAbort.DROP)
            wakeup = self._cancel(head, conversation, by_worker=interrupts).wakeup
            self._state.turns[new.turn_id].woken = wakeup.turn_id if wakeup else None
        return Accepted(turn_id=new.turn_id, wakeup=wakeup, created=True)

    def _known(self, new: NewTurn, known: StoredTurn) -> Accepted | Refused:
        """The answer to a repeat; the conversation may be forgotten or another's by now."""
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
        alike = (turn.agent, turn.user_id, turn.metadata, turn.stream, turn.on_abort) == (
            *(new.agent, new.user_id, dict(new.metadata), new.stream, new.on_abort),
        )
        joined = f"{turn.input}\n\n{new.input}"
        plain = not turn.attachments and not new.attachments
        fits = len(joined.encode()) <= self._settings.max_message_bytes
        undated = turn.deadline_at is None and not new.timeout and not new.deadline_at
        if not (waits and alike and plain and undated and fits):
            return False
        entry.turn = replace(turn, input=joined)
        self._state.merged[new.turn_id] = newest
        return True

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
        """See `TurnStore.claim`."""
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                known = self._state.conversations.get(conversation_id)
                if known is not None:
                    self._state.head(known)
                return Refusal(reason=RefusalReason.MISSING, turn=None)
            if entry.turn.status.ended:
                return Refusal(reason=RefusalReason.ENDED, turn=entry.turn)
            conversation = self._state.conversations[conversation_id]
            lease = conversation.lease
            if self._state.head(conversation) != turn_id:
                return Refusal(reason=RefusalReason.WAITING, turn=entry.turn)
            now = self._state.now()
            parked = entry.turn.status is TurnStatus.PARKED and not entry.turn.cancel_requested
            if parked and (entry.turn.wakes_at is None or entry.turn.wakes_at > now):
                return Refusal(reason=RefusalReason.PARKED, turn=entry.turn)
            if lease is None or lease.token != token:
                if lease is not None and lease.expires > now:
                    return Refusal(reason=RefusalReason.LEASED, turn=entry.turn)
                if self._kept_from(entry, conversation, isolated):
                    conversation.due = now + self._settings.dispatch_grace
                    return Refusal(reason=RefusalReason.SUSPECT, turn=entry.turn)
                if entry.never_claimed and entry.dispatches == 0:
                    due = conversation.due if entry.in_line is None else entry.in_line
                    self._state.claimed[partition_of(conversation_id)] = due or 0
                conversation.epoch = self._state.next_epoch(conversation)
                expires = now + self._settings.lease_ttl
                lease = HeldLease(token, turn_id, conversation.epoch, expires)
                conversation.lease, conversation.due = lease, expires
                self._start(entry, owner, now)
            return Claim(
                lease=Lease(
                    conversation_id=conversation_id,
                    turn_id=turn_id,
                    epoch=lease.epoch,
                    token=token,
                    generation=conversation.generation,
                ),
                turn=entry.turn,
                steps=tuple(entry.steps),
                history=conversation.memory.load(window),
                calls=take_calls(entry, lease.epoch, now),
                answering=conversation.answering.get(entry.turn.agent),
                spent=conversation.spent,
                summary=self._summary(conversation),
                calibration=conversation.calibration,
                now=now,
            )

    def _kept_from(self, entry: StoredTurn, conversation: Conversation, isolated: bool) -> bool:
        """Whether a turn that lost its worker must not run here."""
        if entry.turn.status is TurnStatus.RUNNING:
            conversation.lease = None
            self._lose(entry)
        turn = entry.turn
        nothing_to_run = turn.cancel_requested or turn.deaths >= self._settings.max_attempts
        return turn.suspect and not isolated and not nothing_to_run

    def _start(self, entry: StoredTurn, owner: str, now: float) -> None:
        attempt = entry.turn.attempt + 1
        entry.dispatches = 0
        same_call = entry.failures_at == len(entry.steps)
        entry.turn = replace(
            entry.turn,
            status=TurnStatus.RUNNING,
            wakes_at=None,
            failures=entry.turn.failures if same_call else 0,
            attempt=attempt,
            worker=owner,
            started_at=entry.turn.started_at or now,
        )
        self._state.emit(entry, EventType.STARTED, {"attempt": attempt, "worker": owner})

    def record(self, lease: Lease, index: int, step: Step) -> bool:
        """See `TurnStore.record`."""
        with self._state.changed:
            entry, _, _ = self._state.owned(lease)
            if index > len(entry.steps):
                raise behind(lease, index, len(entry.steps))
            if index == len(entry.steps):
                entry.steps.append(step)
                entry.turn = replace(entry.turn, steps=index + 1)
                self._state.emit(entry, EventType.STEP, step_event(index, step))
            return entry.turn.cancel_requested

    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        """See `TurnStore.commit`."""
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.committed == lease.fence:
                return entry.following
            entry, conversation, _ = self._state.owned(lease)
            completed = ending.status is TurnStatus.COMPLETED
            keeps = completed or entry.turn.on_abort is OnAbort.KEEP
            same_history = conversation.generation == lease.generation
            if keeps and same_history:
                conversation.memory.append(ending.messages)
                if ending.handed_over and ending.answered_by:
                    conversation.answering[entry.turn.agent] = ending.answered_by
            if same_history:
                conversation.spent += ending.spent - entry.counted
            if ending.status is TurnStatus.FAILED:
                entry.counted = ending.spent
            if ending.calibration is not None:
                conversation.calibration = ending.calibration
            conversation.lease = None
            entry.kept = keeps and bool(ending.messages)
            last = ending.messages[-1] if ending.messages else None
            replied = completed and isinstance(last, AssistantMessage)
            entry.turn = replace(
                entry.turn,
                messages=tuple(ending.messages) if completed else (),
                text=last.content if replied and last else None,
                usage=ending.usage,
                steps=ending.steps,
                error=ending.error,
                answered_by=ending.answered_by,
                structured=ending.structured,
            )
            leaves = keeps and same_history and bool(ending.messages)
            return self._end(
                entry,
                conversation,
                ending.status,
                lease.fence,
                ending_event(ending),
                leaves=leaves,
            )

    def release(self, lease: Lease, delay: float = 0) -> None:
        """See `TurnStore.release`."""
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.released == lease.fence:
                return
            entry, conversation, _ = self._state.owned(lease)
            conversation.lease = None
            conversation.due = self._state.now() + delay
            entry.released = lease.fence
            entry.turn = replace(
                entry.turn,
                status=TurnStatus.QUEUED,
                handbacks=entry.turn.handbacks + 1,
                deferrals=entry.turn.deferrals + (1 if delay > 0 else 0),
            )

    def park(self, lease: Lease, delay: float, *, failures: int, steps: int, reason: str) -> bool:
        """See `TurnStore.park`."""
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.parked == lease.fence:
                return True
            entry, conversation, _ = self._state.owned(lease)
            if entry.turn.cancel_requested:
                return False
            deadline = entry.turn.deadline_at
            wake = min(self._state.now() + delay, math.inf if deadline is None else deadline)
            conversation.lease, conversation.due = None, wake
            entry.parked, entry.failures_at = lease.fence, steps
            entry.turn = replace(
                entry.turn,
                status=TurnStatus.PARKED,
                wakes_at=wake,
                failures=failures,
                parks=entry.turn.parks + 1,
            )
            self._state.emit(entry, EventType.PARKED, parked_event(delay, reason))
            return True

    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """See `TurnStore.renew`."""
        with self._state.changed:
            return [self._renew_one(lease) for lease in leases]

    def _renew_one(self, lease: Lease) -> Renewal:
        if not self._state.owns(lease):
            return Renewal(held=False)
        entry, conversation, held = self._state.owned(lease)
        held.expires = conversation.due = self._state.now() + self._settings.lease_ttl
        return Renewal(held=True, cancel=entry.turn.cancel_requested)

    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> None:
        """See `TurnStore.emit`."""
        with self._state.changed:
            for lease, number, events in batches:
                if not self._state.owns(lease):
                    continue
                entry, _, held = self._state.owned(lease)
                if held.batch < number:
                    held.batch = number
                    for event in events:
                        self._state.emit(entry, event.type, event.data)

    def turn(self, turn_id: str) -> Turn:
        """See `TurnStore.turn`."""
        with self._state.changed:
            return self._state.joined(turn_id).turn

    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        """See `TurnStore.events`."""
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

    def interrupt(self) -> None:
        """See `TurnStore.interrupt`."""
        with self._state.changed:
            self._interrupted = True
            self._state.changed.notify_all()

    def check_protocol(self) -> None:
        """See `TurnStore.check_protocol`. There is only one process."""

    def ping(self) -> None:
        """See `TurnStore.ping`."""

    def close(self) -> None:
        """See `TurnStore.close`."""
        self.interrupt()
