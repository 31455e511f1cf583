"""Deletes a user's data: conversations, turns, events and everything that belongs to them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from agentapi.errors import ArchiveLost, InvalidInput, TurnNotFound
from agentapi.stores import Dropped, TurnStore, Unended
from agentapi.stores.data import OwnedConversation, OwnedTurn, Whose, forget_operation

_PAUSE: Final = 0.1

MORE_THAN_LEASE: Final = 5.0
"""Seconds for a cancelled turn to stop, in addition to the expiry of a dead worker's lease."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgottenUser:
    """What `forget_user` deleted, or would delete after a dry run.

    Attributes:
        user_id: The user.
        conversations: Conversations that the user began.
        turns: Turns, with results and events: all turns of these conversations, and the user's
            turns in others.
        messages: Messages of these conversations, and of the user's turns in others. A dry run
            cannot know what a turn that has not ended will leave when it is cancelled.
        ends: Stored ends for clients that follow ends.
        left: Turns that are cancelled but have not stopped yet. Their data still exists: call it
            again.
        dry_run: Whether nothing was changed.
    """

    user_id: str
    conversations: int = 0
    turns: int = 0
    messages: int = 0
    ends: int = 0
    left: Sequence[str] = field(default_factory=tuple)
    dry_run: bool = False


def checked_user(user_id: object) -> str:
    """Check and return the user's id.

    Raises:
        InvalidInput: It is not text, or is empty, which would select data without a user.
    """
    if not isinstance(user_id, str) or not user_id:
        raise InvalidInput("user_id is empty or not text: expected the id of the user to forget")
    return user_id


def count_user(store: TurnStore, whose: Whose) -> ForgottenUser:
    """Count what a deletion would delete."""
    store.data.require_archive()
    # The number of messages in each conversation. A lost history has no turns of other users.
    readable: dict[str, int] = {}
    lost: set[str] = set()
    for found in store.data.conversations(whose):
        try:
            snapshot = store.data.snapshot(found.conversation_id)
        except ArchiveLost:
            lost.add(found.conversation_id)
        else:
            if snapshot is not None:
                readable[found.conversation_id] = snapshot.messages
    messages = sum(readable.values())
    turns: set[str] = set()
    for turn in store.data.turns(whose, within=readable):
        known = turn.turn_id in turns or turn.conversation_id in readable.keys() | lost
        turns.add(turn.turn_id)
        if turn.ended and not known:
            messages += _messages_of(store, turn)
    return ForgottenUser(
        user_id=whose.user_id or "",
        conversations=len(readable) + len(lost),
        turns=len(turns),
        messages=messages,
        dry_run=True,
    )


def _messages_in(store: TurnStore, conversation: OwnedConversation) -> int:
    """The number of messages in a conversation; 0 if it is gone, or the archive has lost it."""
    try:
        snapshot = store.data.snapshot(conversation.conversation_id)
    except ArchiveLost:
        return 0
    return 0 if snapshot is None else snapshot.messages


def _messages_of(store: TurnStore, turn: OwnedTurn) -> int:
    """The number of a turn's messages, in its conversation's history or stored with the turn."""
    try:
        return len(store.turn(turn.turn_id).messages)
    except (ArchiveLost, TurnNotFound):
        return 0


class Forgetting:
    """One deletion of a user's data."""

    def __init__(
        self, store: TurnStore, whose: Whose, cancel: Callable[[str], object], wait: float
    ) -> None:
        """Prepare the deletion.

        Args:
            store: The store with the data.
            whose: The user whose data to delete.
            cancel: Cancels a turn, and sends the wake-ups that follow from it.
            wait: Seconds to wait for running turns.
        """
        self._store = store
        self._whose = whose
        self._cancel = cancel
        self._deadline = time.monotonic() + wait
        self._dropped: set[str] = set()
        self._turns = self._messages = 0
        self._left: set[str] = set()

    def run(self) -> ForgottenUser:
        """Delete everything; returns when running turns have stopped, or the wait has timed out."""
        self._store.data.require_archive()
        # Finish a deletion that was interrupted, perhaps one of the same user.
        for dropped in self._store.data.remains():
            self._wipe(dropped)
        for conversation in self._store.data.conversations(self._whose):
            self._conversation(conversation)
        # Turns in other users' conversations, and turns whose conversation no longer exists.
        for turn in self._store.data.turns(self._whose):
            self._turn(turn)
        if not self._left:
            self._store.data.erase_copies(self._whose)
        return ForgottenUser(
            user_id=self._whose.user_id or "",
            conversations=len(self._dropped),
            turns=self._turns,
            messages=self._messages,
            ends=self._store.data.erase_ends(self._whose),
            left=sorted(self._left),
        )

    def _conversation(self, conversation: OwnedConversation) -> None:
        store, operation = self._store.conversations, forget_operation()
        while True:
            messages = _messages_in(self._store, conversation)
            dropped = store.drop(conversation.conversation_id, conversation.tenant_id, operation)
            if not isinstance(dropped, Unended):
                break
            # Newest first: otherwise the end of each would start the next.
            self._stop(list(reversed(dropped.turn_ids)))
            if not self._wait():
                self._left.update(dropped.turn_ids)
                return
        if dropped is None:
            return
        self._dropped.add(conversation.conversation_id)
        self._messages += messages
        self._wipe(dropped)

    def _turn(self, turn: OwnedTurn) -> None:
        """Delete a turn outside the user's own conversations."""
        while True:
            messages = _messages_of(self._store, turn)
            if self._store.data.erase(turn, uuid.uuid4().hex) is not None:
                break
            self._stop([turn.turn_id])
            if not self._wait():
                self._left.add(turn.turn_id)
                return
        self._turns += 1
        if turn.conversation_id not in self._dropped:
            self._messages += messages

    def _wipe(self, dropped: Dropped) -> None:
        left = 1
        while left:
            wiped = self._store.conversations.wipe(dropped, uuid.uuid4().hex)
            left = wiped.left
            self._turns += len(wiped.turns)

    def _stop(self, turn_ids: Sequence[str]) -> None:
        for turn_id in turn_ids:
            with suppress(TurnNotFound):
                self._cancel(turn_id)

    def _wait(self) -> bool:
        """Wait a little; returns whether there is time left."""
        if time.monotonic() > self._deadline:
            return False
        time.sleep(_PAUSE)
        return True
