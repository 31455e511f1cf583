"""The data of a user or tenant in memory; the twin of the Lua scripts."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import orjson
from typing_extensions import override

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import dumps, loads
from agentapi.conversation.window import Window
from agentapi.memory.in_memory import InMemoryMemory
from agentapi.stores.conversations import ConversationStore, Dropped
from agentapi.stores.data import (
    ACTIVE,
    FORGET,
    DataStore,
    OwnedConversation,
    OwnedTurn,
    Restored,
    Snapshot,
    Staging,
    Whose,
)
from agentapi.stores.in_memory.state import Conversation, State
from agentapi.turns.budget import Spent


class InMemoryData(DataStore):
    """The `DataStore` of eager mode."""

    def __init__(self, state: State, conversations: ConversationStore) -> None:
        self._state = state
        self._conversations = conversations
        self._staged: dict[Staging, tuple[list[bytes], dict[str, bytes]]] = {}
        self._imported: dict[str, tuple[Conversation, str, str]] = {}

    @override
    def conversations(self, whose: Whose) -> Iterator[OwnedConversation]:
        with self._state.changed:
            found = [
                OwnedConversation(conversation_id=c, tenant_id=known.memory.tenant_id)
                for c, known in self._state.conversations.items()
                if whose.fits(known.memory.user_id or "", known.memory.tenant_id or "")
            ]
        yield from found

    @override
    def turns(self, whose: Whose, within: Collection[str] = ()) -> Iterator[OwnedTurn]:
        with self._state.changed:
            found = [
                OwnedTurn(
                    turn_id=turn_id,
                    conversation_id=entry.turn.conversation_id,
                    ended=entry.turn.status.ended,
                )
                for turn_id, entry in self._state.turns.items()
                if entry.turn.conversation_id in within
                or whose.fits(entry.turn.user_id or "", entry.turn.tenant_id or "")
            ]
        yield from found

    @override
    def require_archive(self) -> None:
        return

    @override
    def remains(self) -> Iterator[Dropped]:
        with self._state.changed:
            found = [left.rpartition(f":{FORGET}") for left in self._state.left]
        for conversation_id, mark, operation in found:
            if mark:
                left = f"{conversation_id}{mark}{operation}"
                yield Dropped(conversation_id=conversation_id, left=left)

    @override
    def erase(self, turn: OwnedTurn, operation: str) -> int | None:
        with self._state.changed:
            before: int | None = self._state.answer_before(turn.turn_id, operation)
            entry = self._state.turns.get(turn.turn_id)
            if before is not None or entry is None:
                return before or 0
            if not entry.turn.status.ended:
                return None
            removed = 0
            conversation = self._state.conversations.get(turn.conversation_id)
            if conversation is not None:
                removed = _take_back(conversation, turn.turn_id)
                names = {a.blob for a in entry.turn.attachments if a.blob}
                needed = conversation.memory.blobs_in_use()
                for other in conversation.inbox:
                    if (waiting := self._state.turns.get(other)) is not None:
                        needed |= {a.blob for a in waiting.turn.attachments if a.blob}
                conversation.memory.discard(names - needed)
            self._conversations.forget(turn.conversation_id, turn.turn_id, uuid.uuid4().hex)
            return self._state.keep_answer(turn.turn_id, operation, removed)

    @override
    def erase_ends(self, whose: Whose) -> int:
        with self._state.changed:
            ends = self._state.ends
            erased = 0
            for number, end in enumerate(list(ends)):
                if whose.fits(end.user_id or "", end.tenant_id or ""):
                    # A reader's position is the number of ends before it, so positions must not
                    # shift.
                    ends[number] = dataclasses.replace(end, user_id=None, conversation_id="")
                    erased += 1
            return erased

    @override
    def erase_copies(self, whose: Whose) -> int:
        return 0

    @override
    def snapshot(self, conversation_id: str) -> Snapshot | None:
        with self._state.changed:
            known = self._state.conversations.get(conversation_id)
            if known is None:
                return None
            messages = known.memory.load(Window())
            return Snapshot(
                conversation_id=conversation_id,
                generation=known.generation,
                messages=len(messages),
                last=dumps(messages[-1]) if messages else b"",
                imported=self._digest(known),
                fields=_fields(known),
            )

    def _digest(self, known: Conversation) -> str:
        was, digest, _ = self._imported.get(known.memory.conversation_id, (None, "", ""))
        return digest if was is known else ""

    @override
    def raw(self, conversation_id: str, start: int, stop: int) -> Sequence[bytes]:
        with self._state.changed:
            known = self._state.conversations.get(conversation_id)
            messages = known.memory.load(Window()) if known is not None else ()
            return [dumps(message) for message in messages[start : stop + 1]]

    @override
    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    def stage(
        self,
        staging: Staging,
        position: int,
        messages: Sequence[bytes],
        blobs: Mapping[str, bytes] | None = None,
    ) -> bool:
        with self._state.changed:
            staged, bytes_of = self._staged.setdefault(staging, ([], {}))
            if len(staged) not in (position, position + len(messages)):
                return False
            staged[position:] = messages
            bytes_of |= blobs or {}
            return True

    @override
    def restore(
        self,
        staging: Staging,
        fields: Mapping[str, str],
        *,
        messages: int,
        digest: str,
        replace: bool,
    ) -> Restored:
        with self._state.changed:
            staged, blobs = self._staged.pop(staging, ([], {}))
            conversation_id = staging.conversation_id
            known = self._state.conversations.get(conversation_id)
            if known is not None:
                was, before, by = self._imported.get(conversation_id, (None, "", ""))
                if (known.memory.tenant_id or "") != fields.get("tenant", ""):
                    return Restored.TENANT
                if was is known and by == staging.operation:
                    return Restored.IMPORTED
                if was is known and before == digest:
                    return Restored.KNOWN
                if not replace:
                    return Restored.EXISTS
                if self._state.head(known) is not None:
                    return Restored.BUSY
            if len(staged) != messages:
                return Restored.LOST
            made = _conversation(conversation_id, fields, known)
            made.memory.append([loads(message) for message in staged], blobs)
            self._state.conversations[conversation_id] = made
            self._imported[conversation_id] = (made, digest, staging.operation)
            return Restored.IMPORTED


def _take_back(conversation: Conversation, turn_id: str) -> int:
    messages = conversation.memory.load(Window())
    places = [n for n, message in enumerate(messages) if message.turn_id == turn_id]
    for place in reversed(places):
        conversation.memory.remove(place)
    if places and places[0] < conversation.summary.covered:
        conversation.summary = Summary()
    return len(places)


def _fields(known: Conversation) -> dict[str, str]:
    fields = {
        "created": f"{known.created_at * 1000:.0f}",
        "updated": f"{known.updated_at * 1000:.0f}",
        "user": known.memory.user_id or "",
        "tenant": known.memory.tenant_id or "",
        "metadata": orjson.dumps(dict(known.metadata)).decode(),
        "turns": str(known.turns),
        "steps": str(known.spent.steps),
        "tokens": str(known.spent.tokens),
        "cost": str(known.spent.cost),
        "calibration": str(known.calibration),
        "contexts": orjson.dumps(dict(known.contexts)).decode(),
    }
    if known.agent is not None:
        fields["agent"] = known.agent
    if known.summary.text:
        fields |= {"summary": known.summary.text, "covered": str(known.summary.covered)}
    return fields | {f"{ACTIVE}{agent}": other for agent, other in known.answering.items()}


def _conversation(
    conversation_id: str, fields: Mapping[str, str], before: Conversation | None
) -> Conversation:
    memory = InMemoryMemory(
        conversation_id=conversation_id,
        user_id=fields.get("user") or None,
        tenant_id=fields.get("tenant") or None,
    )
    return Conversation(
        memory,
        created_at=int(fields["created"]) / 1000,
        updated_at=int(fields.get("updated", fields["created"])) / 1000,
        agent=fields.get("agent"),
        turns=int(fields.get("turns", 0)),
        metadata=orjson.loads(fields.get("metadata", "{}")),
        epoch=before.epoch if before is not None else 0,
        generation=before.generation + 1 if before is not None else 1,
        answering={
            name.removeprefix(ACTIVE): other
            for name, other in fields.items()
            if name.startswith(ACTIVE)
        },
        spent=Spent(
            steps=int(fields.get("steps", 0)),
            tokens=int(fields.get("tokens", 0)),
            cost=float(fields.get("cost", 0)),
        ),
        summary=Summary(text=fields.get("summary", ""), covered=int(fields.get("covered", 0))),
        calibration=float(fields.get("calibration", 1)),
        contexts=orjson.loads(fields.get("contexts", "{}")),
    )
