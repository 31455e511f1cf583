"""One worker's place in a fleet: the serving process and its replacement."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from orchestrator.stack.worker_process import WorkerProcess


class Place:
    """Starts the processes of one place. Its replacements alternate between two names.

    Attributes:
        serving: The serving process; None between the end of one and the start of the next.
        next: A replacement that takes over as soon as `serving` has ended.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        other: tuple[str, Sequence[str]] | None,
        env: Mapping[str, str],
    ) -> None:
        """Describe the place; no process starts yet.

        Args:
            name: The name of its first process.
            command: Program and arguments of that process.
            other: Name and command of its replacement, whose own replacement has the first name
                again; the same as the first process's when not given.
            env: The whole environment of the processes.
        """
        self.serving: WorkerProcess | None = None
        self.next: WorkerProcess | None = None
        self._ways = [(name, command), other or (name, command)]
        self._env = env
        # While a replacement starts, the end of the other process must not start a third one.
        self._starting = asyncio.Lock()

    @property
    def name(self) -> str:
        """The name of the serving process."""
        return self._ways[0][0]

    @property
    def processes(self) -> list[WorkerProcess]:
        """Its processes that have not ended."""
        found = (self.serving, self.next)
        return [each for each in found if each is not None and each.exit_code is None]

    async def serve(self) -> WorkerProcess:
        """The process that serves from now on: the replacement, or a new process."""
        async with self._starting:
            if self.next is not None:
                self.serving, self.next = self.next, None
                self._ways.reverse()
            else:
                name, command = self._ways[0]
                self.serving = await WorkerProcess.start(name, command, self._env)
            return self.serving

    async def start_replacement(self) -> WorkerProcess:
        """Start a process that will replace the serving one."""
        async with self._starting:
            name, command = self._ways[1]
            self.next = await WorkerProcess.start(name, command, self._env, replaces=True)
            return self.next
