"""Several worker processes under one command: restarted, replaced one by one, and ended."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from agentapi.logs import line
from orchestrator.stack.announcer import Announcer
from orchestrator.stack.restarts import SETTLED_AFTER, RestartDelay
from orchestrator.stack.terminal import has_terminal
from orchestrator.stack.worker_place import Place
from orchestrator.stack.worker_process import WorkerProcess

log = logging.getLogger("agentapi.fleet")

READY_WITHIN: Final = 120.0
"""Seconds within which a replacement must begin to take turns."""

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

Changes: TypeAlias = Callable[[], AsyncIterator[str]]
"""Yields the changed file each time the processes must be restarted."""


class WorkerFleet:
    """Runs one process for each command until a signal ends all of them.

    - A process that ends by itself is started again, after a delay that grows while it keeps
      ending early.
    - A process that fails on its first start ends the fleet: its settings are wrong, and another
      try would not help.
    - SIGINT, SIGTERM and SIGQUIT are passed on unchanged each time, so that a second one keeps
      Celery's meaning: hand the turns back immediately.
    - SIGHUP replaces the processes one by one. Each replacement takes turns before the process
      that it replaces is stopped. If one does not start, the remaining processes are left as they
      are. When a terminal that is closed sends SIGHUP, it is passed on as SIGTERM.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        env: Mapping[str, str],
        kill_after: float,
        changes: Changes | None = None,
        own: Mapping[str, Mapping[str, str]] | None = None,
        others: Mapping[str, tuple[str, Sequence[str]]] | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        """Describe the fleet; `run` starts it.

        Args:
            commands: Program and arguments by process name.
            env: The whole environment of the processes.
            kill_after: Seconds after the first signal at which a process that has not ended is
                killed.
            changes: Restart all processes each time this yields. A process that fails is then not
                restarted until the next change.
            own: Further variables of single processes, by process name.
            others: Name and command of each process's replacement, by its own name; the same as
                its own when not given.
            announcer: Is told how many processes take turns.
        """
        own, others = own or {}, others or {}
        self._places = [
            Place(name, command, other=others.get(name), env={**env, **own.get(name, {})})
            for name, command in commands.items()
        ]
        self._kill_after = kill_after
        self._changes = changes
        self._announcer = announcer
        self._last_signal: signal.Signals | None = None
        self._exit_code = 0
        # Replaced at each change, so that everyone who waits for the next change sees it once.
        self._changed = asyncio.Event()
        self._roll_wanted = asyncio.Event()
        self._rolling = False
        self._stopping = asyncio.Event()
        self._had_terminal = has_terminal()

    async def run(self) -> int:
        """Run until all processes have ended; returns the exit code for this one."""
        loop = asyncio.get_running_loop()
        for number in _STOPS:
            loop.add_signal_handler(number, self.pass_on, number)
        # Under nohup the signal is ignored, and must stay ignored.
        hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        if hangs_up:
            loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        background = [loop.create_task(self._roll())]
        if self._changes is not None:
            background.append(loop.create_task(self._watch(self._changes)))
        if self._announcer is not None:
            background.append(loop.create_task(self._announcer.run(self.ready)))
        try:
            async with asyncio.TaskGroup() as places:
                for place in self._places:
                    places.create_task(self._keep(place))
            # Replacements that are no longer needed.
            for process in self._running():
                await process.ended()
        finally:
            for task in background:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            for number in (*_STOPS, *([signal.SIGHUP] if hangs_up else [])):
                loop.remove_signal_handler(number)
        return self._exit_code

    def ready(self) -> tuple[int, int, bool]:
        """How many places have a process that takes turns, out of how many, and whether they are
        being replaced."""
        taken = sum(any(each.takes_turns for each in place.processes) for place in self._places)
        return taken, len(self._places), self._rolling

    def hang_up(self) -> None:
        """Answer SIGHUP: replace all processes, or end because the terminal was closed."""
        if self._had_terminal and not has_terminal():
            self.pass_on(signal.SIGTERM)
        elif self._changes is not None:
            self._restart_all("SIGHUP")
        elif not self._stopping.is_set():
            # During a roll, another roll follows, because some processes may already have been
            # replaced.
            self._roll_wanted.set()

    def pass_on(self, number: signal.Signals) -> None:
        """Ask all processes to end, with this signal."""
        first = self._last_signal is None
        if first:
            processes = len(self._running())
            log.info(line("fleet.stopping", signal=number.name, processes=processes))
            # Only at the first signal: further ones must not extend the time.
            asyncio.get_running_loop().call_later(self._kill_after, self._kill)
        self._last_signal = number
        self._stopping.set()
        for process in self._running():
            # A process that a roll has asked to end would treat this as a second signal.
            if not (first and process.asked is number):
                process.send(number)

    def _running(self) -> list[WorkerProcess]:
        return [process for place in self._places for process in place.processes]

    def _kill(self) -> None:
        for process in self._running():
            log.error(line("fleet.killed", worker=process.name, after=self._kill_after))
            process.kill()

    async def _keep(self, place: Place) -> None:
        """Keep one process running until the fleet stops."""
        delay, first = RestartDelay(), True
        while not self._stopping.is_set():
            # Read before the start, so that a change during the run is noticed after it.
            changed = self._changed
            process = await place.serve()
            # A signal that arrived while the process was starting did not reach it.
            if self._last_signal is not None and process.asked is None:
                process.send(self._last_signal)
            code = await process.ended()
            place.serving = None
            if self._stopping.is_set():
                return
            if changed.is_set() or place.next is not None:
                delay, first = RestartDelay(), False
                continue
            lived = time.monotonic() - process.started
            if code > 0 and self._changes is not None:
                log.error(
                    line("fleet.ended", worker=place.name, exit_code=code, waits_for="change")
                )
                await self._first_of(changed.wait())
                continue
            # Only an exit code above 0: a process killed by a signal says nothing about its
            # settings.
            # On a busy machine a process may take long to detect that they are wrong.
            if code > 0 and first and not (process.was_ready and lived >= SETTLED_AFTER):
                log.error(line("fleet.failed", worker=place.name, exit_code=code))
                self._exit_code = self._exit_code or code
                self.pass_on(signal.SIGTERM)
                return
            first, rest = False, delay.after(lived)
            log.warning(line("fleet.ended", worker=place.name, exit_code=code, restart_in=rest))
            await self._first_of(asyncio.sleep(rest), changed.wait())

    async def _first_of(self, *waits: Coroutine[Any, Any, object]) -> None:
        """Wait until the first of these is done, or the fleet stops."""
        tasks = [asyncio.create_task(wait) for wait in (*waits, self._stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _roll(self) -> None:
        """Replace all processes one by one, each time a roll is requested."""
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted.clear()
            self._rolling = True
            try:
                await self._replace_all()
            except Exception:
                # The processes continue, and the next SIGHUP tries again.
                log.exception(line("fleet.roll_failed"))
            finally:
                self._rolling = False

    async def _replace_all(self) -> None:
        count = len(self._places)
        log.info(line("fleet.rolling", processes=count))
        for done, place in enumerate(self._places):
            if not await self._replace(place):
                if not self._stopping.is_set():
                    log.error(line("fleet.roll_stopped", replaced=done, processes=count))
                return
        log.info(line("fleet.rolled", processes=count))

    async def _replace(self, place: Place) -> bool:
        """Replace one process; returns whether its replacement takes turns."""
        if self._stopping.is_set():
            return False
        new = await place.start_replacement()
        if self._last_signal is not None and new.asked is None:
            new.send(self._last_signal)
        await self._first_of(new.settled(), asyncio.sleep(READY_WITHIN))
        if self._stopping.is_set():
            return False
        if not new.takes_turns:
            await self._give_up(place, new)
            return False
        old = place.serving
        # None, or the replacement itself, if the old process has died in the meantime.
        if old is not None and old is not new:
            await self._end(old)
            log.info(line("fleet.replaced", worker=old.name, by=new.name))
        return True

    async def _give_up(self, place: Place, new: WorkerProcess) -> None:
        why: dict[str, object] = {"exit_code": new.exit_code}
        if new.exit_code is None:
            why = {"not_ready_after": READY_WITHIN}
        log.error(line("fleet.replacement_failed", worker=place.name, by=new.name, **why))
        await self._end(new)
        # Otherwise the old process has died and the replacement already serves, so `_keep` restarts
        # it.
        if place.next is new:
            place.next = None

    async def _end(self, process: WorkerProcess) -> None:
        """Ask a process to end, and kill it if it does not."""
        if process.exit_code is None:
            process.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._kill_after):
                await process.ended()
        except TimeoutError:
            log.error(line("fleet.killed", worker=process.name, after=self._kill_after))
            process.kill()
            await process.ended()

    def _restart_all(self, what: str) -> None:
        log.info(line("fleet.restarting", changed=what))
        # Wake those who wait for this change, then make a new event for the next one.
        self._changed.set()
        self._changed = asyncio.Event()
        # The turns continue after the restart, so do not wait for them.
        for process in self._running():
            process.send(signal.SIGQUIT)

    async def _watch(self, changes: Changes) -> None:
        """Restart all processes at each change. Ends the fleet if changes can no longer be seen."""
        try:
            async for what in changes():
                self._restart_all(what)
        except Exception:
            log.exception(line("fleet.watch_failed"))
            self._exit_code = 1
            self.pass_on(signal.SIGTERM)
