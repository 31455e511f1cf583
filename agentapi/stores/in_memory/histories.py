"""Histories in memory, with their summaries and blobs."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window
from agentapi.stores.in_memory.part import InMemoryPart
from agentapi.stores.protocol import HistoryStore
from agentapi.turns.budget import Spent


class InMemoryHistories(InMemoryPart, HistoryStore):
    """The `HistoryStore` of eager mode."""

    @override
    def history(self, conversation_id: str) -> list[Message]:
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            return list(conversation.memory.load(Window())) if conversation else []

    @override
    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            return conversation.memory.blobs(names) if conversation else {}

    @override
    def set_aside(self, turn_id: str, names: Sequence[str]) -> dict[str, bytes]:
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            kept = entry.blobs if entry is not None else {}
            return {name: kept[name] for name in names if name in kept}

    @override
    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        return self.history(conversation_id)[start : stop + 1 or None]

    @override
    def summary(self, conversation_id: str) -> Summary:
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            return conversation.summary_now() if conversation else Summary()

    @override
    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            if conversation is None or conversation.generation != generation:
                return False
            known = conversation.summary
            if (known.covered, known.text) == (stop, text):
                return True
            if known.covered != start:
                return False
            conversation.summary = Summary(text=text, covered=stop)
            return True

    @override
    def reset(self, conversation_id: str) -> int:
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            if conversation is None:
                return 0
            dropped = len(conversation.memory.messages)
            waiting = [e.turn for t in conversation.inbox if (e := self._state.turns.get(t))]
            needed = [a.blob for turn in waiting for a in turn.attachments if a.blob]
            kept = conversation.memory.blobs(needed)
            conversation.memory.reset()
            conversation.memory.keep(kept)
            conversation.answering.clear()
            conversation.spent = Spent()
            conversation.summary = Summary()
            conversation.contexts = {}
            conversation.generation += 1
            return dropped
