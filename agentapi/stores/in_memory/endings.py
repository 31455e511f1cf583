"""Ends of turns in memory, with or without workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agentapi.conversation.window import Window
from agentapi.stores.answers import Cancellation, CancelOutcome
from agentapi.stores.conversations import Place, digest_of
from agentapi.stores.in_memory.lists import end_of
from agentapi.stores.in_memory.state import Conversation, State, StoredCalls, StoredTurn
from agentapi.stores.lease import Wakeup
from agentapi.turns import EventType, TurnStatus

BY_CANCEL: Final = "cancel"
BY_DEADLINE: Final = "deadline"
"""What can end a turn without a worker."""


class Endings:
    """Ends turns, for every part of the store."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._settings = state.settings

    def end(
        self,
        entry: StoredTurn,
        conversation: Conversation,
        status: TurnStatus,
        committed: str,
        data: Mapping[str, object],
        *,
        leaves: bool = False,
    ) -> Wakeup | None:
        """End a turn; see `end_turn` in prelude.lua.

        Args:
            entry: The turn.
            conversation: Its conversation.
            status: How it ends.
            committed: What ended it: the fence of a lease, or one of the constants above.
            data: Data of the event.
            leaves: Whether it leaves messages in the history, so that its images and files stay.

        Returns:
            The wake-up of the turn that may run now.
        """
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
            if status is TurnStatus.COMPLETED or not entry.turn.segments:
                entry.steps.clear()
            entry.calls = StoredCalls()
        if not leaves:
            self._drop_blobs(entry, conversation, kept=status is TurnStatus.FAILED)
            entry.place = _end_of(conversation)
        entry.committed = committed
        entry.turn = replace(
            entry.turn, status=status, waiting_for=None, ended_at=self._state.now()
        )
        self._state.emit(entry, EventType(status.value), data)
        self._state.ends.append(end_of(entry))
        self._state.ended += 1
        now = self._state.now()
        if self._state.hooked.get(entry.turn.agent, 0) > now:
            entry_name = f"{entry.turn.turn_id}:{entry.turn.last_event}:{entry.turn.agent}"
            self._state.untold[entry_name] = now
        return entry.following

    def _drop_blobs(self, entry: StoredTurn, conversation: Conversation, *, kept: bool) -> None:
        """Delete images and files without references; set those of a failed turn aside."""
        needed = conversation.memory.blobs_in_use()
        for other in conversation.inbox:
            if (waiting := self._state.turns.get(other)) is not None:
                needed |= {a.blob for a in waiting.turn.attachments if a.blob}
        names = {a.blob for a in entry.turn.attachments if a.blob} - needed
        if kept:
            entry.blobs |= conversation.memory.blobs(sorted(names))
        conversation.memory.discard(names)

    def cancel(
        self, entry: StoredTurn, conversation: Conversation, *, by_worker: bool
    ) -> Cancellation:
        """Cancel a turn that has not ended; see `cancel_turn` in prelude.lua."""
        lease, now = conversation.lease, self._state.now()
        mine = lease is not None and lease.turn_id == entry.turn.turn_id
        if lease is not None and mine and lease.expires > now:
            entry.turn = replace(entry.turn, cancel_requested=True)
            self._state.told.add(lease.token.partition(":")[0])
            self._state.changed.notify_all()
            return Cancellation(outcome=CancelOutcome.REQUESTED)
        if by_worker:
            entry.turn = replace(entry.turn, cancel_requested=True)
            conversation.due = now + self._settings.dispatch_grace
            wakeup = self._state.wakeup(entry.turn.turn_id)
            return Cancellation(outcome=CancelOutcome.REQUESTED, wakeup=wakeup)
        if mine:
            conversation.epoch = self._state.next_epoch(conversation)
            conversation.lease = None
        following = self.end(entry, conversation, TurnStatus.CANCELLED, BY_CANCEL, {})
        return Cancellation(outcome=CancelOutcome.CANCELLED, wakeup=following)


def _end_of(conversation: Conversation) -> Place:
    """The last message of a history; see `note_place` in prelude.lua."""
    messages = conversation.memory.load(Window())
    digest = digest_of(messages[-1]) if messages else ""
    return Place(position=len(messages) - 1, digest=digest)
