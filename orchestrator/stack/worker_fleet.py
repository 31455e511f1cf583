"""Several worker processes under one command: kept running, and ended in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from agentapi.logs import line
from orchestrator.stack.processes import LAUNCH

log = logging.getLogger("agentapi.fleet")

FIRST_DELAY: Final = 1.0
"""Seconds before a process that ended is started again; doubled each time it ends early."""

MAX_DELAY: Final = 30.0

SETTLED_AFTER: Final = 15.0
"""Seconds after which a process counts as started well."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)

Changes: TypeAlias = Callable[[], AsyncIterator[str]]
"""Yields what changed, each time that the processes are to be restarted."""


class WorkerFleet:
    """Runs one process for each command until a signal asks all of them to end.

    - A process that ends by itself is started again, after a delay that grows while it keeps
      ending early.
    - A process that fails on its first start ends the fleet: its settings are wrong, and another
      try would not help.
    - SIGINT, SIGTERM and SIGQUIT are passed on as they are, each time, so that a second one has
      Celery's meaning: hand the turns back immediately. SIGHUP, which a closed terminal sends, is
      passed on as SIGTERM.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        env: Mapping[str, str],
        kill_after: float,
        changes: Changes | None = None,
        own: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Describe the fleet; `run` starts it.

        Args:
            commands: Program and arguments by process name.
            env: The whole environment of the processes.
            kill_after: Seconds after the first signal at which a process that has not ended is
                killed.
            changes: Restart all processes each time this yields. A process that fails is then
                left until the next change.
            own: Further variables of single processes, by their names.
        """
        self._commands = commands
        self._env = env
        self._own = own or {}
        self._kill_after = kill_after
        self._changes = changes
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._last_signal: signal.Signals | None = None
        self._exit_code = 0
        # Replaced at each change, so that everyone who waits for the next change gets it once.
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run until all processes have ended; returns the exit code for this one."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.pass_on, number)
        watching = loop.create_task(self._watch(self._changes)) if self._changes else None
        try:
            async with asyncio.TaskGroup() as places:
                for name in self._commands:
                    places.create_task(self._keep(name))
        finally:
            if watching is not None:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        return self._exit_code

    def pass_on(self, number: signal.Signals) -> None:
        """Ask all processes to end, with this signal."""
        if number is signal.SIGHUP:
            number = signal.SIGTERM
        if self._last_signal is None:
            log.info(line("fleet.stopping", signal=number.name, processes=len(self._running)))
            # Once, at the first signal: further ones must not extend the time.
            asyncio.get_running_loop().call_later(self._kill_after, self._kill)
        self._last_signal = number
        self._stopping.set()
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _kill(self) -> None:
        for name, process in self._running.items():
            log.error(line("fleet.killed", worker=name, after=self._kill_after))
            with suppress(ProcessLookupError):
                process.kill()

    async def _keep(self, name: str) -> None:
        """Keep one process running until the fleet stops."""
        delay, first = FIRST_DELAY, True
        while not self._stopping.is_set():
            # Taken before the start, so that a change during the run is seen after it.
            changed, started = self._changed, time.monotonic()
            code = await self._run_once(name)
            if self._stopping.is_set():
                return
            if changed.is_set():
                delay = FIRST_DELAY
                continue
            settled = time.monotonic() - started >= SETTLED_AFTER
            if code > 0 and self._changes is not None:
                log.error(line("fleet.ended", worker=name, exit_code=code, waits_for="change"))
                await self._first_of(changed.wait())
                continue
            # Only an exit code above 0: a process killed by a signal says nothing about its
            # settings.
            if code > 0 and first and not settled:
                log.error(line("fleet.failed", worker=name, exit_code=code))
                self._exit_code = self._exit_code or code
                self.pass_on(signal.SIGTERM)
                return
            first, delay = False, FIRST_DELAY if settled else delay
            log.warning(line("fleet.ended", worker=name, exit_code=code, restart_in=delay))
            await self._first_of(asyncio.sleep(delay), changed.wait())
            delay = min(2 * delay, MAX_DELAY)

    async def _run_once(self, name: str) -> int:
        """Start a process and wait for its end; returns its exit code, or minus its signal."""
        process = await asyncio.create_subprocess_exec(
            # On Linux it gets SIGTERM if this process dies without a chance to send one.
            *(sys.executable, str(LAUNCH), str(os.getpid()), *self._commands[name]),
            stdin=asyncio.subprocess.DEVNULL,
            env={**self._env, **self._own.get(name, {})},
            # Ctrl-C reaches only this process, which passes it on once.
            start_new_session=True,
        )
        self._running[name] = process
        # A signal that came while the process was being started did not reach it.
        if self._last_signal is not None:
            self._send(self._last_signal)
        try:
            return await process.wait()
        finally:
            del self._running[name]

    async def _first_of(self, *waits: Coroutine[Any, Any, object]) -> None:
        """Wait for the first of these, or for the fleet to stop."""
        tasks = [asyncio.create_task(wait) for wait in (*waits, self._stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _watch(self, changes: Changes) -> None:
        """Restart all processes at each change. Ends the fleet if changes can no longer be seen."""
        try:
            async for what in changes():
                log.info(line("fleet.restarting", changed=what))
                # Wake those who wait for this change, then make a new event for the next one.
                self._changed.set()
                self._changed = asyncio.Event()
                # The turns go on after the restart; nobody wants to wait for them here.
                self._send(signal.SIGQUIT)
        except Exception:
            log.exception(line("fleet.watch_failed"))
            self._exit_code = 1
            self.pass_on(signal.SIGTERM)
