"""The workers' part of the store, in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

from typing_extensions import override

from agentapi.conversation.messages import AssistantMessage, UserMessage
from agentapi.conversation.window import Window
from agentapi.ids import partition_of
from agentapi.stores.answers import (
    Claim,
    ClaimCause,
    Ending,
    LostClaim,
    NewEvent,
    Recorded,
    Refusal,
    RefusalReason,
    Renewal,
    Unreadable,
)
from agentapi.stores.in_memory.calls import take_calls
from agentapi.stores.in_memory.causes import cause_of_claim, ready_since
from agentapi.stores.in_memory.part import InMemoryPart
from agentapi.stores.in_memory.state import Conversation, HeldLease, StoredTurn
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.protocol import WorkerStore
from agentapi.stores.redis.codec import ending_event, parked_event, step_event
from agentapi.stores.refusals import behind
from agentapi.turns import EventType, OnAbort, Step, TurnStatus, UserStep, WaitingFor, WaitKind
from agentapi.turns.marks import MarkKind, last_mark, step_mark


class _News(TypedDict, total=False):
    cause: ClaimCause
    waited: float
    lost: LostClaim


class InMemoryWorker(InMemoryPart, WorkerStore):
    """The `WorkerStore` of eager mode."""

    @override
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
            news: _News = {}
            if lease is None or lease.token != token:
                if lease is not None and lease.expires > now:
                    return Refusal(reason=RefusalReason.LEASED, turn=entry.turn)
                news = self._news(entry, conversation, now)
                if self._kept_from(entry, conversation, isolated):
                    conversation.due = now + self._settings.dispatch_grace
                    return Refusal(reason=RefusalReason.SUSPECT, turn=entry.turn)
                lease = self._take(entry, conversation, token, owner, now)
                self._note_claim(entry, lease, news["cause"], news["waited"], now)
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
                summary=conversation.summary_now(),
                calibration=conversation.calibration,
                contexts=conversation.contexts,
                now=now,
                **news,
            )

    def _news(self, entry: StoredTurn, conversation: Conversation, now: float) -> _News:
        """Data that only the first answer to a claim contains. Call this before the claim changes
        anything."""
        cause = cause_of_claim(entry, conversation)
        news = _News(cause=cause, waited=self._waited(entry, conversation, now))
        if cause is ClaimCause.LEASE_EXPIRED:
            news["lost"] = LostClaim(at=entry.claimed_at, worker=entry.turn.worker)
        return news

    def _take(
        self, entry: StoredTurn, conversation: Conversation, token: str, owner: str, now: float
    ) -> HeldLease:
        """Give the conversation's lease to a claim."""
        turn = entry.turn
        if entry.never_claimed and entry.dispatches == 0:
            due = conversation.due if entry.in_line is None else entry.in_line
            self._state.claimed[partition_of(turn.conversation_id)] = due or 0
        conversation.epoch = self._state.next_epoch(conversation)
        expires = now + self._settings.lease_ttl
        lease = HeldLease(token, turn.turn_id, conversation.epoch, expires)
        conversation.lease, conversation.due = lease, expires
        self._start(entry, owner, now)
        return lease

    def _waited(self, entry: StoredTurn, conversation: Conversation, now: float) -> float:
        return max(0.0, now - ready_since(entry, conversation, self._settings.dispatch_grace))

    def _note_claim(
        self, entry: StoredTurn, lease: HeldLease, cause: ClaimCause, waited: float, now: float
    ) -> None:
        turn = entry.turn
        epoch = round(lease.epoch - turn.created_at * 1000)
        data = [turn.attempt, turn.worker, cause.value, round(waited * 1000), epoch]
        entry.note(now, MarkKind.CLAIMED, *data)

    def _kept_from(self, entry: StoredTurn, conversation: Conversation, isolated: bool) -> bool:
        """Whether a turn that lost its worker must not run in this process."""
        if entry.turn.status is TurnStatus.RUNNING:
            conversation.lease = None
            entry.lose()
            entry.note(self._state.now(), MarkKind.LOST)
        turn = entry.turn
        nothing_to_run = turn.cancel_requested or turn.deaths >= self._settings.max_attempts
        return turn.suspect and not isolated and not nothing_to_run

    def _start(self, entry: StoredTurn, owner: str, now: float) -> None:
        attempt = entry.turn.attempt + 1
        entry.dispatches, entry.ready, entry.claimed_at = 0, None, now
        same_call = entry.failures_at == len(entry.steps)
        waits = entry.turn.waiting_for if same_call else None
        entry.turn = replace(
            entry.turn,
            status=TurnStatus.RUNNING,
            wakes_at=None,
            waiting_for=waits and replace(waits, next_try_at=None),
            failures=entry.turn.failures if same_call else 0,
            attempt=attempt,
            worker=owner,
            started_at=entry.turn.started_at or now,
        )
        self._state.emit(entry, EventType.STARTED, {"attempt": attempt, "worker": owner})

    @override
    def record(self, lease: Lease, index: int, step: Step) -> Recorded:
        with self._state.changed:
            entry, _, _ = self._state.owned(lease, "record")
            if index > len(entry.steps):
                raise behind(lease, index, len(entry.steps))
            if index == len(entry.steps):
                entry.steps.append(step)
                entry.turn = replace(entry.turn, steps=index + 1, waiting_for=None)
                kind, data = step_mark(step)
                entry.note(self._state.now(), kind, *data)
                self._state.emit(entry, EventType.STEP, step_event(index, step))
            return Recorded(cancel=entry.turn.cancel_requested, steered=entry.turn.steered)

    @override
    def steer(self, lease: Lease, index: int) -> list[UserStep]:
        with self._state.changed:
            entry, conversation, _ = self._state.owned(lease, "steer")
            if index > len(entry.steps):
                raise behind(lease, index, len(entry.steps))
            if index < len(entry.steps):
                return [step for step in entry.steps[index:] if isinstance(step, UserStep)]
            entry.turn = replace(entry.turn, steered=False)
            found = []
            for other_id in conversation.inbox[1:]:
                other = self._state.turns.get(other_id)
                if other is not None and other.steers == lease.turn_id:
                    found.append(self._join(entry, other))
                    conversation.inbox.remove(other_id)
            return found

    def _join(self, entry: StoredTurn, other: StoredTurn) -> UserStep:
        """Turn the message of a waiting turn into a step of the running one."""
        turn_id, index = entry.turn.turn_id, len(entry.steps)
        step = UserStep(message=UserMessage(content=other.turn.input, turn_id=turn_id))
        entry.steps.append(step)
        entry.note(self._state.now(), MarkKind.USER)
        entry.turn = replace(entry.turn, steps=index + 1)
        self._state.emit(other, EventType.JOINED, {"turn": turn_id})
        self._state.emit(entry, EventType.STEP, step_event(index, step))
        self._state.merged[other.turn.turn_id] = turn_id
        return step

    @override
    def hear_cancel(self, process: str, timeout: float) -> bool:
        with self._state.changed:
            heard = self._state.changed.wait_for(lambda: process in self._state.told, timeout)
            self._state.told.discard(process)
            return heard

    @override
    def tell_cancel(self, process: str) -> None:
        with self._state.changed:
            self._state.told.add(process)
            self._state.changed.notify_all()

    @override
    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.committed == lease.fence:
                return entry.following
            entry, conversation, _ = self._state.owned(lease, "commit")
            completed = ending.status is TurnStatus.COMPLETED
            leaves_by = entry.turn.on_abort
            if ending.status is TurnStatus.FAILED and not ending.refused:
                leaves_by = entry.turn.on_failure or leaves_by
            keeps = (completed or leaves_by is OnAbort.KEEP) and entry.turn.stored
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
            if ending.contexts is not None and same_history:
                conversation.contexts = dict(ending.contexts)
            conversation.lease = None
            if ending.last_step is not None:
                kind, data = last_mark(ending.last_step)
                entry.note(self._state.now(), kind, *data)
            conversation.updated_at = self._state.now()
            conversation.turns += 1
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
            return self._endings.end(
                entry,
                conversation,
                ending.status,
                lease.fence,
                ending_event(ending),
                leaves=leaves,
            )

    @override
    def release(self, lease: Lease, delay: float = 0) -> None:
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.released == lease.fence:
                return
            entry, conversation, _ = self._state.owned(lease, "release")
            conversation.lease = None
            conversation.due = self._state.now() + delay
            entry.released = lease.fence
            entry.note(self._state.now(), MarkKind.HANDED_BACK, round(delay * 1000))
            entry.turn = replace(
                entry.turn,
                status=TurnStatus.QUEUED,
                handbacks=entry.turn.handbacks + 1,
                deferrals=entry.turn.deferrals + (1 if delay > 0 else 0),
            )

    @override
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
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.parked == lease.fence:
                return True
            entry, conversation, _ = self._state.owned(lease, "park")
            if entry.turn.cancel_requested:
                return False
            deadline, now = entry.turn.deadline_at, self._state.now()
            wake = min(now + delay, math.inf if deadline is None else deadline)
            conversation.lease, conversation.due = None, wake
            entry.parked, entry.failures_at = lease.fence, steps
            waits = WaitingFor(
                kind=WaitKind(reason),
                names=tuple(names),
                failures=failures,
                since=None if lasted is None else now - lasted,
                next_try_at=wake,
            )
            entry.turn = replace(
                entry.turn,
                status=TurnStatus.PARKED,
                wakes_at=wake,
                waiting_for=waits if names else None,
                failures=failures,
                parks=entry.turn.parks + 1,
            )
            for name in names:
                if failures > 0 and waits.kind is WaitKind.PROVIDER:
                    self._state.waiting.setdefault(name, set()).add(lease.conversation_id)
            event = parked_event(delay, reason, names, failures)
            entry.note(now, MarkKind.PARKED, event)
            self._state.emit(entry, EventType.PARKED, event)
            return True

    @override
    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        with self._state.changed:
            return [self._renew_one(lease) for lease in leases]

    def _renew_one(self, lease: Lease) -> Renewal:
        if not self._state.owns(lease):
            return Renewal(held=False)
        entry, conversation, held = self._state.owned(lease)
        held.expires = conversation.due = self._state.now() + self._settings.lease_ttl
        return Renewal(held=True, cancel=entry.turn.cancel_requested)

    @override
    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> list[int]:
        with self._state.changed:
            for lease, number, events in batches:
                if not self._state.owns(lease):
                    continue
                entry, _, held = self._state.owned(lease)
                if held.batch < number:
                    held.batch = number
                    for event in events:
                        self._state.emit(entry, event.type, event.data)
        return []
