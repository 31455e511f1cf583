"""Keeps the workers of a stack running."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentapi.errors import ConfigurationError
from orchestrator.stack.processes import Child
from orchestrator.stack.restarts import SETTLED_AFTER, RestartDelay
from orchestrator.stack.stack import Stack

MAX_EARLY_ENDS: Final = 5
"""Number of consecutive workers that may end early before the keeper gives up."""


class WorkerKeeper:
    """Replaces each worker that ends, like `agentapi worker --processes`."""

    def __init__(self, stack: Stack, tell: Callable[[str], object]) -> None:
        """Keep the workers of a running stack alive.

        Args:
            stack: The stack.
            tell: Called with one line for each worker that ends or is started.
        """
        self._stack = stack
        self._tell = tell
        self._delay = RestartDelay()
        self._due: list[tuple[float, Child]] = []

    def look(self) -> None:
        """Start the workers that are due, and check the running processes. Does not wait.

        Raises:
            ConfigurationError: A process ended that is not a worker, or too many workers have ended
                soon after their start. The message shows the end of its log.
        """
        stack = self._stack
        for child in stack.children:
            if child not in stack.workers:
                child.check()
        waiting = [ended for _, ended in self._due]
        for worker in stack.workers:
            if worker.exit_code is not None and worker not in waiting:
                self._note(worker)
        for due in list(self._due):
            if due[0] <= time.monotonic():
                self._due.remove(due)
                new = stack.replace_worker(due[1])
                self._tell(f"{new.name} (pid {new.pid}) replaces {due[1].name}")

    def _note(self, worker: Child) -> None:
        delay = self._delay.after(time.monotonic() - worker.started)
        if (early := self._delay.early) > MAX_EARLY_ENDS:
            raise ConfigurationError(
                f"{early} workers in a row ended within {SETTLED_AFTER:g} s of their start; "
                f"{worker.name} {worker.ending}; the end of {worker.log}:\n{worker.tail()}"
            )
        self._tell(f"{worker.name} {worker.ending}; restarting it in {delay:g} s")
        self._due.append((time.monotonic() + delay, worker))
