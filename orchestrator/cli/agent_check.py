"""Detects early that no worker serves a turn's agent, before the turn fails because of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from orchestrator.cli.worker_agents import agents_of_workers

if TYPE_CHECKING:
    from agentapi import Settings
    from agentapi.errors import UnknownAgent
    from orchestrator.handle import TurnHandle

ROUNDS = 2
"""How many times the workers are asked, because a busy worker may miss a question."""


class AgentCheck:
    """Asks the workers after a turn has waited for a moment.

    A turn of an agent that a worker does not know is left to the other workers for a while
    (`unknown_agent_wait`), which may be about to start.
    """

    def __init__(self, handle: TurnHandle, agent: str, settings: Settings) -> None:
        self._handle = handle
        self._agent = agent
        self._settings = settings
        self._serving: Mapping[str, Sequence[str]] | None = None
        self._thread: threading.Thread | None = None

    def look(self) -> bool:
        """Check without waiting for the workers' answers.

        Returns:
            Whether to check again, because nothing is known yet.

        Raises:
            UnknownAgent: Workers answered, none serves the agent, and one has passed the turn on.
                The turn is cancelled.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, name="agentapi-agents", daemon=True)
            self._thread.start()
            return True
        if self._thread.is_alive():
            return True
        known = _names(self._serving)
        if not known or self._agent in known:
            # Without workers, the turn waits until one is started.
            return False
        if not self._handle.info().deferrals:
            # No worker has seen the turn yet.
            return not self._handle.status().ended
        self._handle.cancel()
        raise not_served(self._agent, known)

    def _ask(self) -> None:
        from agentapi.errors import AgentAPIError

        # Without the broker this is unknown; the turn itself will show what is wrong.
        with contextlib.suppress(AgentAPIError):
            for _ in range(ROUNDS):
                found = agents_of_workers(self._settings)
                self._serving = {**(self._serving or {}), **found}
                if self._agent in _names(found):
                    return


def _names(serving: Mapping[str, Sequence[str]] | None) -> set[str]:
    return {name for names in (serving or {}).values() for name in names}


def not_served(agent: str, known: Iterable[str]) -> UnknownAgent:
    """The error for an agent that no worker serves."""
    from agentapi.decoding.shown import shown
    from agentapi.errors import UnknownAgent

    names = sorted(known)
    close = get_close_matches(agent, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return UnknownAgent(
        f"no worker serves agent {shown(agent)}: {meant}The workers serve {', '.join(names)}. The "
        "turn was cancelled"
    )
