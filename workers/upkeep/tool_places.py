"""A worker whose tool threads all hang leaves turns to others, and is started again when idle.

A thread cannot be stopped. A synchronous tool that hangs keeps its place, and when all places are
taken so, every further turn that calls such a tool waits for its timeout.
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
"""Seconds for which all places are taken and no tool ends, after which the worker takes no turn."""


@dataclass(kw_only=True)
class ToolPlaces:
    """Looks at the tool threads of a worker, once a second.

    Attributes:
        loop: Whose tool threads.
        idle: Whether no turn runs in the worker.
        end: Ends the worker in order.
    """

    loop: asyncio.AbstractEventLoop
    idle: Callable[[], bool]
    end: Callable[[], object]
    hang: bool = False
    _ended: bool = False

    def standing(self) -> ToolThreads:
        """How the threads stand."""
        return tool_threads(self.loop)

    def look(self) -> None:
        """Tell of a change, and end a worker that could only wait for ever."""
        now = self.standing()
        hang = now.stuck > STUCK_AFTER
        if hang and not self.hang:
            log.error(line("tools.hang", threads=now.taken, seconds=round(now.stuck, 1)))
        elif self.hang and not hang:
            log.warning(line("tools.free", threads=now.taken))
        self.hang = hang
        if hang and self.idle() and not self._ended:
            self._ended = True
            log.critical(line("worker.ends", reason="all tool threads hang"))
            self.end()
