"""Conversations outside of their turns, in memory; the twin of the Lua scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from agentapi.conversation.messages import Message, UserMessage, dumps
from agentapi.conversation.window import Window
from agentapi.stores.conversations import (
    WIPE_BYTES,
    WIPE_MESSAGES,
    ConversationRecord,
    ConversationStore,
    Dropped,
    ForgottenTurn,
    Fork,
    Measured,
    OpenConversation,
    Page,
    Place,
    Reading,
    Search,
    SearchOn,
    StoredMessage,
    Unended,
    Wiped,
    digest_of,
)
from agentapi.stores.in_memory.state import Conversation, State


class InMemoryConversations(ConversationStore):
    """The `ConversationStore` of eager mode."""

    def __init__(self, state: State) -> None:
        self._state = state

    @override
    def open(self, opening: OpenConversation) -> ConversationRecord | None:
        with self._state.changed:
            if not opening.create and opening.conversation_id not in self._state.conversations:
                return None
            conversation = self._state.open(
                opening.conversation_id, opening.user_id, opening.tenant_id
            )
            if conversation is None:
                return None
            if opening.metadata is not None:
                conversation.metadata = dict(opening.metadata)
            call = opening.conversation_id, opening.operation
            if opening.messages and not self._state.answer_before(*call):
                conversation.memory.append(opening.messages)
                self._state.keep_answer(*call, True)
            return _record(conversation)

    @override
    def find(self, conversation_id: str, tenant_id: str | None) -> ConversationRecord | None:
        with self._state.changed:
            conversation = self._of(conversation_id, tenant_id)
            return None if conversation is None else _record(conversation)

    @override
    def remove(
        self, conversation_id: str, tenant_id: str | None, message: StoredMessage, operation: str
    ) -> bool:
        with self._state.changed:
            conversation = self._of(conversation_id, tenant_id)
            if conversation is None:
                return False
            if self._state.answer_before(conversation_id, operation):
                return True
            messages = list(conversation.memory.load(Window()))
            at = message.position
            if at >= len(messages) or dumps(messages[at]) != message.raw:
                return False
            conversation.memory.remove(at)
            covered = conversation.summary.covered
            if at < covered:
                conversation.summary = replace(conversation.summary, covered=covered - 1)
            return self._state.keep_answer(conversation_id, operation, True)

    @override
    def drop(
        self,
        conversation_id: str,
        tenant_id: str | None,
        operation: str,
        *,
        expected: int | None = None,
    ) -> Dropped | Unended | None:
        dropped = Dropped(conversation_id=conversation_id, left=f"{conversation_id}:{operation}")
        with self._state.changed:
            if dropped.left in self._state.left:
                return dropped
            conversation = self._of(conversation_id, tenant_id)
            if conversation is None:
                return None
            turns = [entry.turn for t in conversation.inbox if (entry := self._state.turns.get(t))]
            waiting = [turn.turn_id for turn in turns if not turn.status.ended]
            if waiting:
                return Unended(turn_ids=waiting)
            messages = conversation.memory.load(Window())
            if expected is not None and len(messages) != expected:
                return None
            # Turns that the history does not name, such as cancelled ones.
            named = {message.turn_id for message in messages}
            others = [
                UserMessage(content="", turn_id=turn_id)
                for turn_id, entry in self._state.turns.items()
                if entry.turn.conversation_id == conversation_id and turn_id not in named
            ]
            # Also kept for an empty history, so that a repeat finds it.
            self._state.left[dropped.left] = [*messages, *others, None]
            del self._state.conversations[conversation_id]
            return dropped

    @override
    def wipe(self, dropped: Dropped, step: str) -> Wiped:
        with self._state.changed:
            before: Wiped | None = self._state.answer_before(dropped.left, step)
            return before or self._state.keep_answer(dropped.left, step, self._wipe(dropped))

    def _wipe(self, dropped: Dropped) -> Wiped:
        left = self._state.left.get(dropped.left, [])
        turns: list[ForgottenTurn] = []
        popped = size = 0
        newest: str | None = None
        while left and popped < WIPE_MESSAGES and size < WIPE_BYTES:
            message = left.pop(0)
            popped += 1
            if message is None:
                continue
            size += len(dumps(message))
            if message.turn_id and message.turn_id != newest:
                newest = message.turn_id
                forgotten = self._forget(dropped.conversation_id, newest)
                if isinstance(forgotten, ForgottenTurn):
                    turns.append(forgotten)
        if not left:
            self._state.left.pop(dropped.left, None)
        return Wiped(left=len(left), turns=turns)

    @override
    def forget(
        self, conversation_id: str, turn_id: str, operation: str
    ) -> ForgottenTurn | Unended | None:
        with self._state.changed:
            before: ForgottenTurn | None = self._state.answer_before(turn_id, operation)
            if before is not None:
                return before
            forgotten = self._forget(conversation_id, turn_id)
            if isinstance(forgotten, ForgottenTurn):
                self._state.keep_answer(turn_id, operation, forgotten)
            return forgotten

    def _forget(self, conversation_id: str, turn_id: str) -> ForgottenTurn | Unended | None:
        entry = self._state.turns.get(turn_id)
        if entry is None or entry.turn.conversation_id != conversation_id:
            return None
        if not entry.turn.status.ended:
            return Unended(turn_ids=[turn_id])
        del self._state.turns[turn_id]
        for merged in [m for m, into in self._state.merged.items() if into == turn_id]:
            del self._state.merged[merged]
        return ForgottenTurn(
            accepted_at=entry.turn.created_at, input_bytes=len(entry.turn.input.encode())
        )

    @override
    def relabel(
        self,
        conversation_id: str,
        turn_id: str,
        metadata: Mapping[str, Any],
        operation: str,
        *,
        part: int = 0,
    ) -> bool:
        with self._state.changed:
            if self._state.answer_before(turn_id, operation) is not None:
                return True
            entry = self._state.turns.get(turn_id)
            if entry is None or entry.turn.conversation_id != conversation_id:
                return False
            turn = entry.turn
            if not turn.status.ended or (part and part not in turn.parts):
                return False
            if part:
                entry.turn = replace(turn, parts={**turn.parts, part: dict(metadata)})
            else:
                entry.turn = replace(turn, metadata=dict(metadata))
            self._state.keep_answer(turn_id, operation, True)
            return True

    @override
    def continue_from(
        self, conversation_id: str, turn_id: str, operation: str, *, take: bool
    ) -> bool:
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                return False
            if entry.successor is not None:
                return entry.successor == operation
            conversation = self._state.conversations.get(conversation_id)
            if (
                conversation is None
                or self._newest(conversation, entry.turn.status.ended) != turn_id
            ):
                return False
            if take:
                entry.successor = operation
            return True

    def _newest(self, conversation: Conversation, ended: bool) -> str | None:
        if not ended:
            return conversation.inbox[-1] if conversation.inbox else None
        messages = conversation.memory.load(Window())
        return messages[-1].turn_id if messages and not conversation.inbox else None

    @override
    def fork(self, fork: Fork, copied: int) -> int | None:
        with self._state.changed:
            source = self._state.conversations.get(fork.source)
            messages = source.memory.load(Window()) if source else ()
            last = fork.place.position
            if (
                source is None
                or last >= len(messages)
                or digest_of(messages[last]) != fork.place.digest
            ):
                return None
            copy = self._state.open(fork.copy, fork.user_id, fork.tenant_id)
            if copy is None:
                return None
            at = len(copy.memory.load(Window()))
            if at > copied:
                return at
            size = 0
            while at <= last and size < fork.step_bytes:
                for message in messages[at : min(at + 16, last + 1)]:
                    blobs = source.memory.blobs(_blobs_of(message))
                    copy.memory.append([message], blobs)
                    size += len(dumps(message)) + sum(map(len, blobs.values()))
                    at += 1
            if at > last:
                if source.summary.covered <= at:
                    copy.summary = source.summary
                copy.calibration = source.calibration
            return at

    @override
    def page(self, conversation_id: str, tenant_id: str | None, reading: Reading) -> Page | None:
        with self._state.changed:
            conversation = self._of(conversation_id, tenant_id)
            if conversation is None:
                return None
            messages = conversation.memory.load(Window())
        last = min(reading.last, len(messages) - 1)
        positions = range(reading.first, last + 1)
        found: list[StoredMessage] = []
        size = 0
        for position in positions if reading.up else reversed(positions):
            if size >= reading.max_bytes:
                break
            raw = dumps(messages[position])
            found.append(StoredMessage(position=position, raw=raw, message=messages[position]))
            size += len(raw)
        return Page(total=len(messages), messages=found)

    @override
    def seek(
        self, conversation_id: str, tenant_id: str | None, search: Search
    ) -> Place | SearchOn | None:
        with self._state.changed:
            conversation = self._of(conversation_id, tenant_id)
            if conversation is None:
                return None
            messages = conversation.memory.load(Window())
        before = len(messages) if search.before is None else search.before
        looked = size = 0
        while before > 0 and looked < search.max_messages and size < search.max_bytes:
            start = max(before - 64, 0)
            for position in reversed(range(start, min(before, len(messages)))):
                message = messages[position]
                if message.turn_id == search.turn_id:
                    return Place(position=position, digest=digest_of(message))
                size += len(dumps(message))
            looked, before = looked + before - start, start
        return SearchOn(before=before) if before > 0 else None

    @override
    def measure(
        self, conversation_id: str, tenant_id: str | None, reading: Reading
    ) -> Measured | None:
        with self._state.changed:
            conversation = self._of(conversation_id, tenant_id)
            if conversation is None:
                return None
            messages = conversation.memory.load(Window())
        at = reading.first
        read = attached = 0
        while at <= min(reading.last, len(messages) - 1) and read < reading.max_bytes:
            for message in messages[at : min(at + 64, reading.last + 1)]:
                read += len(dumps(message))
                attached += _attached_bytes(message)
                at += 1
        return Measured(end=at, size=read + attached)

    def _of(self, conversation_id: str, tenant_id: str | None) -> Conversation | None:
        """The conversation, if it belongs to the tenant."""
        conversation = self._state.conversations.get(conversation_id)
        if conversation is None or conversation.memory.tenant_id != tenant_id:
            return None
        return conversation


def _record(conversation: Conversation) -> ConversationRecord:
    return ConversationRecord(
        created_at=conversation.created_at, metadata=dict(conversation.metadata)
    )


def _blobs_of(message: Message) -> Sequence[str]:
    attachments = message.attachments if isinstance(message, UserMessage) else ()
    return [attachment.blob for attachment in attachments if attachment.blob]


def _attached_bytes(message: Message) -> int:
    attachments = message.attachments if isinstance(message, UserMessage) else ()
    return sum(attachment.size for attachment in attachments)
