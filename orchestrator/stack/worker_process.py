"""One run of a worker process, which reports when it is ready."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from agentapi.readiness import READY_FD, REPLACES
from orchestrator.stack.processes import LAUNCH


class WorkerProcess:
    """A worker process from its start to its end.

    Attributes:
        name: Its name among the workers.
        started: When it was started, by the monotonic clock.
        asked: The last signal that was sent to it.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, pipe: int) -> None:
        self.name = name
        self.started = time.monotonic()
        self.asked: signal.Signals | None = None
        self._process = process
        self._pipe: int | None = pipe
        self._ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe, self._read)

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], env: Mapping[str, str], *, replaces: bool = False
    ) -> WorkerProcess:
        """Start it. Returns before it is ready.

        Args:
            name: Its name among the workers.
            command: Program and arguments.
            env: Its whole environment.
            replaces: Whether it replaces a process that is still running.
        """
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        own = {READY_FD: str(writer), **({REPLACES: "1"} if replaces else {})}
        try:
            process = await asyncio.create_subprocess_exec(
                # On Linux the kernel sends it SIGTERM if this process dies without sending one.
                *(sys.executable, str(LAUNCH), str(os.getpid()), *command),
                stdin=asyncio.subprocess.DEVNULL,
                env={**env, **own},
                pass_fds=(writer,),
                # Ctrl-C reaches only this process, which passes it on once.
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return cls(name, process, reader)

    @property
    def takes_turns(self) -> bool:
        """Whether it has reported that it is ready and was not asked to end."""
        return self._ready.is_set() and self.asked is None and self.exit_code is None

    @property
    def was_ready(self) -> bool:
        """Whether it has ever reported that it is ready."""
        return self._ready.is_set()

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or minus its signal; None while it runs."""
        return self._process.returncode

    async def settled(self) -> bool:
        """Wait until it is ready or has ended; returns whether it is ready."""
        waits = [asyncio.create_task(each) for each in (self._ready.wait(), self._process.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._ready.is_set() and self.exit_code is None

    async def ended(self) -> int:
        """Wait for its end; returns its exit code, or minus its signal."""
        code = await self._process.wait()
        self._close()
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal if it is still running."""
        self.asked = number
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """Send it SIGKILL if it is still running."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def _read(self) -> None:
        if self._pipe is not None and os.read(self._pipe, 64):
            self._ready.set()
        # Also at its end, because a pipe without writers would keep waking the loop.
        self._close()

    def _close(self) -> None:
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
