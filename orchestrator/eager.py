"""Eager test mode: the workers' own app, run inside the producer's process.

This is the only place where a producer uses the workers' code. It is imported by name, so that
`orchestrator` does not depend on `workers`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agentapi.settings import Settings
from agentapi.stores import TurnStore, Wakeup

if TYPE_CHECKING:
    from agentapi.agents.definition import AgentDefinition


class EagerWakeups:
    """Runs turns instead of sending tasks for them."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def send(self, wakeups: Sequence[Wakeup]) -> None:
        """Run the turns, and then the turns queued behind them, one after the other."""
        for wakeup in wakeups:
            self._app.dispatcher.send(wakeup)
        # Carry out overdue errands, such as deadlines, because no sweep runs here.
        self._app.runtime.carry_out_errands()

    def close(self) -> None:
        """End the runtime's threads."""
        self._app.runtime.stop()


def eager_backend(
    settings: Settings, agents: Iterable[AgentDefinition] | None
) -> tuple[TurnStore, EagerWakeups]:
    """The in-memory store and the app that runs turns on it.

    Raises:
        ConfigurationError: A module of `AGENTAPI_AGENTS` cannot be imported.
    """
    app = importlib.import_module("workers.app").create_app(settings, agents)
    return app.store, EagerWakeups(app)
