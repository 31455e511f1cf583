"""Ends of turns in this process, by workers or without them; the twin of `redis_endings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agentapi.conversation.messages import Usage
from agentapi.stores.answers import Cancellation, CancelOutcome, Ending
from agentapi.stores.in_memory.histories import InMemoryHistories
from agentapi.stores.in_memory.state import Conversation, State, StoredCalls, StoredTurn
from agentapi.stores.lease import Wakeup
from agentapi.stores.redis.codec import ending_event
from agentapi.stores.refusals import (
    already_kept,
    busy,
    missed_deadline,
    not_failed,
    other_tenant,
)
from agentapi.turns import EventType, OnAbort, TurnError, TurnStatus

BY_CANCEL: Final = "cancel"
BY_DEADLINE: Final = "deadline"
"""What ended a turn that no worker ended."""


class InMemoryEndings(InMemoryHistories):
    """The part of the `TurnStore` that ends turns, and begins failed ones again."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._settings = state.settings

    def _end(
        self,
        entry: StoredTurn,
        conversation: Conversation,
        status: TurnStatus,
        committed: str,
        data: Mapping[str, object],
        *,
        leaves: bool = False,
    ) -> Wakeup | None:
        turn_id = entry.turn.turn_id
        was_head = self._state.head(conversation) == turn_id
        conversation.inbox.remove(turn_id)
        following = self._state.head(conversation) if was_head else None
        if following is not None:
            conversation.due = self._state.now() + self._settings.dispatch_grace
            entry.following = self._state.wakeup(following)
        elif was_head:
            conversation.due = None
        by_worker = committed not in (BY_CANCEL, BY_DEADLINE)
        self._state.leave_errands(entry, self._settings.dispatch_grace if by_worker else 0)
        if status is not TurnStatus.FAILED:
            entry.steps.clear()
            entry.calls = StoredCalls()
        if not leaves:
            self._drop_blobs(entry, conversation, kept=status is TurnStatus.FAILED)
        entry.committed = committed
        entry.turn = replace(entry.turn, status=status, ended_at=self._state.now())
        self._state.emit(entry, EventType(status.value), data)
        return entry.following

    def _drop_blobs(self, entry: StoredTurn, conversation: Conversation, *, kept: bool) -> None:
        """Images and files that nothing names any more go; a failed turn's are set aside."""
        needed = conversation.memory.blobs_in_use()
        for other in conversation.inbox:
            if (waiting := self._state.turns.get(other)) is not None:
                needed |= {a.blob for a in waiting.turn.attachments if a.blob}
        names = {a.blob for a in entry.turn.attachments if a.blob} - needed
        if kept:
            entry.blobs |= conversation.memory.blobs(sorted(names))
        conversation.memory.discard(names)

    def cancel(self, turn_id: str) -> Cancellation:
        """See `TurnStore.cancel`."""
        with self._state.changed:
            entry = self._state.joined(turn_id)
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

    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        """See `TurnStore.retry`."""
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
        if entry.kept:
            raise already_kept(turn.turn_id)
        known = self._state.conversations.get(turn.conversation_id)
        if known is not None:
            self._state.head(known)
            if len(known.inbox) >= self._settings.inbox_limit:
                raise busy(turn.conversation_id, len(known.inbox))
        conversation = self._state.open(turn.conversation_id, turn.user_id, turn.tenant_id)
        if conversation is None:
            raise other_tenant(turn.conversation_id)
        conversation.memory.keep(entry.blobs)
        entry.blobs = {}
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
            deaths=0,
            deferrals=0,
            ended_at=None,
        )
        self._state.emit(entry, EventType.RETRIED, {})
        if not conversation.inbox:
            conversation.due = self._state.now() + self._settings.dispatch_grace
        conversation.inbox.append(turn.turn_id)

    def expire(self, turn_id: str) -> Wakeup | None:
        """See `TurnStore.expire`."""
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                return None
            if entry.committed == BY_DEADLINE:
                return entry.following
            turn = entry.turn
            passed = turn.deadline_at is not None and turn.deadline_at <= self._state.now()
            if not (entry.never_claimed and passed) or turn.cancel_requested:
                return None
            why = missed_deadline()
            error = TurnError(code=why.code, message=str(why))
            entry.turn = replace(turn, error=error)
            conversation = self._state.conversations[turn.conversation_id]
            ending = Ending(status=TurnStatus.FAILED, error=error)
            return self._end(entry, conversation, ending.status, BY_DEADLINE, ending_event(ending))
