"""The base of all parts of the in-memory store."""

from __future__ import annotations

from agentapi.stores.in_memory.endings import Endings
from agentapi.stores.in_memory.state import State


class InMemoryPart:
    """The state that a part works on, and `Endings`, which several parts use."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._settings = state.settings
        self._endings = Endings(state)
