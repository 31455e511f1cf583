"""A worker with only hung tool threads takes no further turns, and is restarted when idle.

A thread cannot be stopped, so a synchronous tool that hangs keeps its thread. Once all threads are
taken that way, every further call of such a tool would only wait for its timeout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentapi.logs import line
from agentapi.tools.threads import ToolThreads, tool_threads

log = logging.getLogger("agentapi.tools")

STUCK_AFTER: Final = 10.0
"""Seconds after which the worker takes no turns if all threads are occupied and no tool ends."""


@dataclass(kw_only=True)
class ToolPlaces:
    """Watches the tool threads of a worker, once a second.

    Attributes:
        loop: The event loop that the tool threads belong to.
        idle: Whether the worker runs no turn.
        end: Shuts the worker down.
    """

    loop: asyncio.AbstractEventLoop
    idle: Callable[[], bool]
    end: Callable[[], object]
    hang: bool = False
    _ended: bool = False

    def standing(self) -> ToolThreads:
        """How many threads are occupied, and for how long no tool has ended."""
        return tool_threads(self.loop)

    def look(self) -> None:
        """Log a change, and end a worker that can do nothing but wait."""
        now = self.standing()
        hang = now.stuck > STUCK_AFTER
        if hang and not self.hang:
            log.error(line("tools.hang", threads=now.taken, seconds=round(now.stuck, 1)))
        elif self.hang and not hang:
            log.warning(line("tools.free", threads=now.taken))
        self.hang = hang
        # Not while turns run: those that wait for a model or an async tool can still complete.
        if hang and self.idle() and not self._ended:
            self._ended = True
            log.critical(line("worker.ends", reason="all tool threads hang"))
            self.end()
