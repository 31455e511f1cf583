"""The in-memory store: the twin of the Redis store, for eager mode and tests.

It makes the same transitions as the Lua scripts, in the same order, each under one lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from typing_extensions import override

from agentapi.settings import Settings
from agentapi.stores.in_memory.backlog import InMemoryBacklog
from agentapi.stores.in_memory.calls import InMemoryCalls
from agentapi.stores.in_memory.conversations import InMemoryConversations
from agentapi.stores.in_memory.data import InMemoryData
from agentapi.stores.in_memory.histories import InMemoryHistories
from agentapi.stores.in_memory.lists import InMemoryLists
from agentapi.stores.in_memory.producer import InMemoryProducer
from agentapi.stores.in_memory.state import State
from agentapi.stores.in_memory.sweep import InMemorySweep
from agentapi.stores.in_memory.telling import InMemoryHooks
from agentapi.stores.in_memory.worker import InMemoryWorker
from agentapi.stores.protocol import TurnStore


class InMemoryTurnStore(
    InMemoryProducer,
    InMemoryWorker,
    InMemorySweep,
    InMemoryHistories,
    InMemoryBacklog,
    TurnStore,
):
    """The `TurnStore` of eager mode. Nothing outlives the process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        state = State(settings, clock)
        super().__init__(state)
        self.calls = InMemoryCalls(settings, state)
        self.conversations = InMemoryConversations(state)
        self.data = InMemoryData(state, self.conversations)
        self.hooks = InMemoryHooks(state)
        self.lists = InMemoryLists(settings, state, self.calls)

    @override
    def check_protocol(self) -> None:
        """Nothing to check: there is only one process."""

    @override
    def ping(self) -> None:
        """Nothing to do."""

    @override
    def close(self) -> None:
        self.interrupt()
