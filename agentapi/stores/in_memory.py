"""Turns in this process: the twin of the Redis store, for eager mode and tests.

The same transitions in the same order as the Lua scripts, each under one lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from agentapi.ids import partition_of
from agentapi.memory.in_memory import InMemoryMemory
from agentapi.messages import AssistantMessage, Usage
from agentapi.settings import Settings
from agentapi.stores.base import (
    LONGEST_GRACE,
    LONGEST_IN_LINE,
    Accepted,
    Cancellation,
    CancelOutcome,
    Claim,
    Election,
    Ending,
    NewEvent,
    Perished,
    Refusal,
    RefusalReason,
    Refused,
    Renewal,
    Unreadable,
)
from agentapi.stores.calls import CallStore, Errand
from agentapi.stores.codec import ending_event, parked_event, step_event
from agentapi.stores.in_memory_calls import InMemoryCalls, take_calls
from agentapi.stores.in_memory_histories import InMemoryHistories
from agentapi.stores.in_memory_state import Conversation, HeldLease, State, StoredCalls, StoredTurn
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.refusals import (
    already_kept,
    busy,
    no_turn,
    not_failed,
    other_tenant,
    rejected,
)
from agentapi.turns import Event, EventType, NewTurn, OnAbort, OnBusy, Step, Turn, TurnStatus
from agentapi.window import Window

BY_CANCEL: Final = "cancel"
"""What ended a turn that no worker ended."""


class InMemoryTurnStore(InMemoryHistories):
    """The `TurnStore` of eager mode. Nothing is kept beyond the process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        super().__init__(State(settings, clock))
        self._settings = settings
        self.calls: CallStore = InMemoryCalls(settings, self._state)
        self._interrupted = False

    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        """See `TurnStore.enqueue`."""
        with self._state.changed:
            return [self._enqueue_one(turn) for turn in turns]

    def _enqueue_one(self, new: NewTurn) -> Accepted | Refused:
        conversation = self._open(new)
        if conversation is None:
            return other_tenant(new.conversation_id)
        if new.turn_id in self._state.merged:
            return Accepted(turn_id=self._state.merged[new.turn_id], wakeup=None, created=False)
        known = self._state.turns.get(new.turn_id)
        if known is not None:
            waiting = known.turn.status is TurnStatus.QUEUED
            first = waiting and conversation.inbox[0] == new.turn_id
            wakeup = self._state.wakeup(new.turn_id) if first else None
            return Accepted(turn_id=new.turn_id, wakeup=wakeup, created=False)
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
        return Accepted(turn_id=new.turn_id, wakeup=wakeup, created=True)

    def _deadline(self, new: NewTurn) -> float | None:
        own = self._state.now() + new.timeout if new.timeout else None
        return min((t for t in (own, new.deadline_at) if t is not None), default=None)

    def _merge(self, new: NewTurn, newest: str) -> bool:
        entry = self._state.turns[newest]
        turn = entry.turn
        waits = turn.status is TurnStatus.QUEUED and not turn.attempt and not turn.cancel_requested
        alike = (turn.agent, turn.user_id, turn.metadata, turn.stream, turn.on_abort) == (
            *(new.agent, new.user_id, dict(new.metadata), new.stream, new.on_abort),
        )
        joined = f"{turn.input}\n\n{new.input}"
        plain = not turn.attachments and not new.attachments
        fits = len(joined.encode()) <= self._settings.max_message_bytes
        if not (waits and alike and plain and fits):
            return False
        entry.turn = replace(turn, input=joined)
        self._state.merged[new.turn_id] = newest
        return True

    def _open(self, new: NewTurn) -> Conversation | None:
        conversation = self._state.conversations.get(new.conversation_id)
        if conversation is None:
            memory = InMemoryMemory(
                conversation_id=new.conversation_id,
                user_id=new.user_id,
                tenant_id=new.tenant_id,
            )
            conversation = self._state.conversations[new.conversation_id] = Conversation(memory)
        elif conversation.memory.tenant_id != new.tenant_id:
            return None
        return conversation

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
                return Refusal(reason=RefusalReason.MISSING, turn=None)
            conversation = self._state.conversations[conversation_id]
            lease = conversation.lease
            if entry.turn.status.ended:
                return Refusal(reason=RefusalReason.ENDED, turn=entry.turn)
            if conversation.inbox[0] != turn_id:
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

    def _lose(self, entry: StoredTurn) -> None:
        losses = entry.turn.losses + 1
        entry.turn = replace(entry.turn, status=TurnStatus.QUEUED, suspect=True, losses=losses)

    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        """See `TurnStore.perish`."""
        with self._state.changed:
            entry = self._state.turns[turn_id]
            conversation = self._state.conversations[conversation_id]
            lease = conversation.lease
            if entry.perished != process:
                if lease is None or lease.turn_id != turn_id or not lease.token.startswith(process):
                    return None
                conversation.lease, conversation.due = None, self._state.now()
                self._lose(entry)
                entry.perished = process
                entry.turn = replace(entry.turn, deaths=entry.turn.deaths + 1)
            return Perished(deaths=entry.turn.deaths, wakeup=self._state.wakeup(turn_id))

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
                raise ValueError(f"step {index} after {len(entry.steps)} steps")
            if index == len(entry.steps):
                entry.steps.append(step)
                entry.turn = replace(entry.turn, steps=index + 1)
                self._state.emit(entry, EventType.STEP, step_event(index, step))
            return entry.turn.cancel_requested

    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        """See `TurnStore.commit`."""
        with self._state.changed:
            entry = self._state.turns[lease.turn_id]
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
            return self._end(entry, conversation, ending.status, lease.fence, ending_event(ending))

    def _end(
        self,
        entry: StoredTurn,
        conversation: Conversation,
        status: TurnStatus,
        committed: str,
        data: Mapping[str, object],
    ) -> Wakeup | None:
        turn_id = entry.turn.turn_id
        was_head = conversation.inbox[0] == turn_id
        conversation.inbox.remove(turn_id)
        if was_head and conversation.inbox:
            conversation.due = self._state.now() + self._settings.dispatch_grace
            entry.following = self._state.wakeup(conversation.inbox[0])
        elif was_head:
            conversation.due = None
        by_worker = committed != BY_CANCEL
        self._state.leave_errands(entry, self._settings.dispatch_grace if by_worker else 0)
        if status is not TurnStatus.FAILED:
            entry.steps.clear()
            entry.calls = StoredCalls()
        entry.committed = committed
        entry.turn = replace(entry.turn, status=status, ended_at=self._state.now())
        self._state.emit(entry, EventType(status.value), data)
        return entry.following

    def release(self, lease: Lease, delay: float = 0) -> None:
        """See `TurnStore.release`."""
        with self._state.changed:
            entry = self._state.turns[lease.turn_id]
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
            entry = self._state.turns[lease.turn_id]
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

    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        """See `TurnStore.retry`."""
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                raise no_turn(turn_id)
            turn = entry.turn
            conversation = self._state.conversations[turn.conversation_id]
            if entry.retried != operation:
                self._queue_again(entry, conversation)
                entry.retried = operation
            head = conversation.inbox[:1] == [turn_id]
            waits = entry.turn.status is TurnStatus.QUEUED
            return self._state.wakeup(turn_id) if head and waits else None

    def _queue_again(self, entry: StoredTurn, conversation: Conversation) -> None:
        turn = entry.turn
        if turn.status is not TurnStatus.FAILED:
            raise not_failed(turn.turn_id, turn.status)
        if entry.kept:
            raise already_kept(turn.turn_id)
        if len(conversation.inbox) >= self._settings.inbox_limit:
            raise busy(turn.conversation_id, len(conversation.inbox))
        entry.committed = entry.following = entry.perished = None
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
            deaths=0,
            deferrals=0,
            ended_at=None,
        )
        self._state.emit(entry, EventType.RETRIED, {})
        if not conversation.inbox:
            conversation.due = self._state.now() + self._settings.dispatch_grace
        conversation.inbox.append(turn.turn_id)

    def orphan(self, process: str) -> list[str]:
        """See `TurnStore.orphan`."""
        with self._state.changed:
            freed = []
            for conversation_id, conversation in self._state.conversations.items():
                lease = conversation.lease
                if lease is not None and lease.token.startswith(process):
                    lease.expires = conversation.due = self._state.now()
                    freed.append(conversation_id)
            return freed

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

    def cancel(self, turn_id: str) -> Cancellation:
        """See `TurnStore.cancel`."""
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                raise no_turn(turn_id)
            if entry.committed == BY_CANCEL:
                return Cancellation(outcome=CancelOutcome.CANCELLED, wakeup=entry.following)
            if entry.turn.status.ended:
                return Cancellation(outcome=CancelOutcome.ENDED)
            conversation = self._state.conversations[entry.turn.conversation_id]
            keeps = entry.turn.on_abort is OnAbort.KEEP and entry.turn.attempt > 0
            return self._cancel(entry, conversation, by_worker=keeps)

    def _cancel(
        self, entry: StoredTurn, conversation: Conversation, *, by_worker: bool
    ) -> Cancellation:
        lease, now = conversation.lease, self._state.now()
        mine = lease is not None and lease.turn_id == entry.turn.turn_id
        if lease is not None and mine and lease.expires > now:
            entry.turn = replace(entry.turn, cancel_requested=True)
            return Cancellation(outcome=CancelOutcome.REQUESTED)
        if by_worker:
            entry.turn = replace(entry.turn, cancel_requested=True)
            conversation.due = now + self._settings.dispatch_grace
            wakeup = self._state.wakeup(entry.turn.turn_id)
            return Cancellation(outcome=CancelOutcome.REQUESTED, wakeup=wakeup)
        if mine:
            conversation.epoch = self._state.next_epoch(conversation)
            conversation.lease = None
        following = self._end(entry, conversation, TurnStatus.CANCELLED, BY_CANCEL, {})
        return Cancellation(outcome=CancelOutcome.CANCELLED, wakeup=following)

    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        """See `TurnStore.elect`."""
        with self._state.changed:
            now = self._state.now()
            elected, until = self._state.elected
            known = elected if until > now else ""
            if known in ("", candidate):
                self._state.elected = (candidate, now + ttl)
                if known and swept:
                    self._state.swept = now
            return Election(elected=known in ("", candidate), since_sweep=self.since_sweep())

    def since_sweep(self) -> float | None:
        """See `TurnStore.since_sweep`."""
        with self._state.changed:
            swept = self._state.swept
            return None if swept is None else max(0.0, self._state.now() - swept)

    def resign(self, candidate: str) -> None:
        """See `TurnStore.resign`."""
        with self._state.changed:
            if self._state.elected[0] == candidate:
                self._state.elected = ("", 0.0)

    def overdue(self, limit: int = 1000) -> list[str | Errand]:
        """See `TurnStore.overdue`."""
        with self._state.changed:
            now = self._state.now()
            late: list[str | Errand] = [
                conversation_id
                for conversation_id, conversation in self._state.conversations.items()
                if conversation.due is not None and conversation.due <= now
            ]
            late += [errand for errand, due in self._state.errands.items() if due <= now]
            return late[:limit]

    def claimed(self) -> dict[int, float]:
        """See `TurnStore.claimed`."""
        with self._state.changed:
            return dict(self._state.claimed)

    def redispatch(
        self, conversation_ids: Iterable[str], claimed: Mapping[int, float]
    ) -> list[Wakeup]:
        """See `TurnStore.redispatch`."""
        with self._state.changed:
            found = [self._redispatch(c, claimed.get(partition_of(c))) for c in conversation_ids]
        return [wakeup for wakeup in found if wakeup is not None]

    def _redispatch(self, conversation_id: str, claimed: float | None) -> Wakeup | None:
        conversation = self._state.conversations[conversation_id]
        now, grace = self._state.now(), self._settings.dispatch_grace
        if conversation.due is None or conversation.due > now:
            return None
        entry = self._state.turns[conversation.inbox[0]]
        sent = entry.dispatches > 0 or entry.never_claimed
        waits_since = conversation.due if entry.in_line is None else entry.in_line
        waited = now - waits_since
        overtaken = claimed is None or claimed > waits_since + 1
        if sent and not overtaken and waited < LONGEST_IN_LINE:
            entry.in_line = waits_since
            conversation.due = now + max(grace, waited)
            return None
        entry.in_line = None
        entry.dispatches += 1
        sent_before = entry.dispatches - (1 if entry.turn.attempt else 0)
        conversation.due = now + min(grace * 2**sent_before, LONGEST_GRACE)
        return self._state.wakeup(entry.turn.turn_id)

    def turn(self, turn_id: str) -> Turn:
        """See `TurnStore.turn`."""
        with self._state.changed:
            entry = self._state.turns.get(self._state.merged.get(turn_id, turn_id))
            if entry is None:
                raise no_turn(turn_id)
            return entry.turn

    def events(self, cursors: Mapping[str, int], timeout: float) -> dict[str, list[Event]]:
        """See `TurnStore.events`."""
        deadline = time.monotonic() + timeout
        with self._state.changed:
            while True:
                found = {
                    turn_id: entry.events[number + 1 :]
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
