"""Histories in this process, and what is kept beside them; the twin of `redis_histories`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window
from agentapi.stores.in_memory.state import Conversation, State
from agentapi.turns.budget import Spent


class InMemoryHistories:
    """The part of the `TurnStore` that is about conversations as such."""

    def __init__(self, state: State) -> None:
        self._state = state

    def history(self, conversation_id: str) -> list[Message]:
        """See `TurnStore.history`."""
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            return list(conversation.memory.load(Window())) if conversation else []

    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """See `TurnStore.blobs`."""
        with self._state.changed:
            return self._state.conversations[conversation_id].memory.blobs(names)

    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        """See `TurnStore.slice`."""
        return self.history(conversation_id)[start : stop + 1]

    def summary(self, conversation_id: str) -> Summary:
        """See `TurnStore.summary`."""
        with self._state.changed:
            conversation = self._state.conversations.get(conversation_id)
            return self._summary(conversation) if conversation else Summary()

    def _summary(self, conversation: Conversation) -> Summary:
        return replace(conversation.summary, total=len(conversation.memory.load(Window())))

    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        """See `TurnStore.summarise`."""
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

    def reset(self, conversation_id: str) -> int:
        """See `TurnStore.reset`."""
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
            conversation.generation += 1
            return dropped
