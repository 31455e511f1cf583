"""The in-memory backlog."""

from __future__ import annotations

from collections import Counter

from typing_extensions import override

from agentapi.ids import partition_of
from agentapi.stores.backlog import Backlog, BacklogStore, ReadyTurn
from agentapi.stores.in_memory.causes import ready_since
from agentapi.stores.in_memory.part import InMemoryPart
from agentapi.stores.in_memory.state import Conversation, StoredTurn
from agentapi.turns import EventType, TurnStatus


class InMemoryBacklog(InMemoryPart, BacklogStore):
    """The `BacklogStore` of eager mode. It examines all turns."""

    @override
    def backlog(self) -> Backlog:
        with self._state.changed:
            now = self._state.now()
            ready: Counter[int] = Counter()
            parked: Counter[str] = Counter()
            running, oldest = 0, 0.0
            first_ready: ReadyTurn | None = None
            for conversation_id, conversation in self._state.conversations.items():
                if conversation.due is None or not conversation.inbox:
                    continue
                entry = self._state.turns.get(conversation.inbox[0])
                if entry is None:
                    continue
                since = self._since(entry, conversation, now)
                if since is not None:
                    ready[partition_of(conversation_id)] += 1
                    if first_ready is None or now - since > oldest:
                        oldest, first_ready = (
                            max(oldest, now - since),
                            ReadyTurn(
                                turn_id=entry.turn.turn_id,
                                conversation_id=conversation_id,
                                agent=entry.turn.agent,
                            ),
                        )
                elif entry.turn.status is TurnStatus.RUNNING:
                    running += 1
                else:
                    parked[_reason(entry)] += 1
            return Backlog(
                ready=dict(ready),
                running=running,
                parked=dict(parked),
                oldest_ready=oldest,
                first_ready=first_ready,
            )

    def _since(self, entry: StoredTurn, conversation: Conversation, now: float) -> float | None:
        """The time since which the turn could run; None if it is running or waiting for
        something."""
        turn, due = entry.turn, conversation.due or 0.0
        if turn.status is TurnStatus.RUNNING and due > now:
            return None
        if turn.status is TurnStatus.PARKED and (turn.wakes_at is None or turn.wakes_at > now):
            return None
        return ready_since(entry, conversation, self._settings.dispatch_grace)


def _reason(entry: StoredTurn) -> str:
    for event in reversed(entry.events):
        if event.type is EventType.PARKED:
            return str(event.data.get("reason", "other"))
    return "other"
