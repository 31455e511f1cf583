"""Keeps a process's background work alive and visible.

A thread must not disappear silently after an unexpected error. Every such error is logged, the
first of a kind with its traceback; the work is restarted with a growing delay; and
`Supervisor.status` reports it. Work that cannot be kept running ends the process, so that the
process manager starts a healthy one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from agentapi.logs import LogLine, line

log = logging.getLogger("agentapi.supervision")

MAX_FAILURES: Final = 10
"""Consecutive failures without progress after which `fatal` is called."""

FIRST_DELAY: Final = 0.1
"""Seconds before the first restart; each consecutive failure doubles them."""

MAX_DELAY: Final = 5.0
"""Maximum delay before a restart, in seconds."""

EXIT_CODE: Final = 70
"""Exit code of a process whose background work cannot continue (EX_SOFTWARE in sysexits.h)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceStatus:
    """The state of a background service.

    Attributes:
        name: The service.
        running: Whether its work is running; false between restarts and after its end.
        failures: Unexpected errors since the process started.
        in_a_row: Unexpected errors since the service last made progress.
        last_error: Type of the latest of them, or None.
        idle: Seconds since the service last made progress.
    """

    name: str
    running: bool
    failures: int
    in_a_row: int
    last_error: str | None
    idle: float


def end_process(name: str) -> NoReturn:
    """End this process immediately: one of its services cannot be kept running.

    Nothing is cleaned up. A worker's watchdog frees its leases, and the process manager starts it
    again.

    Args:
        name: The service.
    """
    log.critical(line("process.ends", service=name, code=EXIT_CODE))
    for handler in logging.getLogger().handlers:
        handler.flush()
    # Not `sys.exit`: it would end only this thread, and a regular exit would wait for hung threads.
    os._exit(EXIT_CODE)


class Service:
    """One piece of background work: a function that gets this object and runs until `stopping`."""

    def __init__(
        self,
        name: str,
        fatal: Callable[[str], object] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._fatal = fatal
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str]] = set()
        self._running = False
        self._failures = 0
        self._in_a_row = 0
        self._last_error: str | None = None
        self._progress = clock()

    @property
    def stopping(self) -> bool:
        """Whether the work has been asked to end."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Block the thread for up to `seconds`; returns whether the work must end."""
        return self._stop.wait(seconds)

    def progress(self) -> None:
        """Report that a round of the work is done. Resets the count of consecutive failures."""
        with self._lock:
            self._in_a_row = 0
            self._progress = self._clock()

    def status(self) -> ServiceStatus:
        """The service's state."""
        with self._lock:
            return ServiceStatus(
                name=self.name,
                running=self._running,
                failures=self._failures,
                in_a_row=self._in_a_row,
                last_error=self._last_error,
                idle=self._clock() - self._progress,
            )

    def failed(self, error: BaseException) -> float:
        """Count and log an unexpected error.

        Work that handles the errors of its own rounds may call this too, and continue.

        Args:
            error: What was raised.

        Returns:
            Seconds to wait before the next attempt.
        """
        with self._lock:
            self._failures += 1
            self._in_a_row += 1
            in_a_row = self._in_a_row
            self._last_error = type(error).__name__
        self._log(error)
        # Called without the lock: `fatal` is the caller's code and may ask for the status.
        if in_a_row >= MAX_FAILURES and self._fatal is not None:
            self._fatal(self.name)
        # The exponent is bounded too: a float overflows after about a thousand failures.
        return float(min(FIRST_DELAY * 2.0 ** min(in_a_row - 1, 16), MAX_DELAY))

    def _log(self, error: BaseException) -> None:
        """Log the first error of a kind at a place with its traceback, repeats as one line.

        Only the error's type and code locations are logged: its text may quote users.
        """
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
        kind = type(error).__name__
        known = (kind, place) in self._seen
        # Bounded, because users' code may fail at any number of places.
        if not known and len(self._seen) < 100:
            self._seen.add((kind, place))
        trace = "" if known else "".join(traceback.format_list(frames)).rstrip()
        fields: dict[str, object] = {"service": self.name, "error": kind, "at": place}
        log.error(LogLine("service.failed", fields, trace))

    def _set_running(self, running: bool) -> None:
        with self._lock:
            self._running = running


class _Returned(RuntimeError):
    """The work returned although it was not asked to end."""


class ThreadService(Service):
    """Background work in its own thread."""

    def __init__(
        self, name: str, work: Callable[[Service], None], fatal: Callable[[str], object] | None
    ) -> None:
        super().__init__(name, fatal)
        self._work = work
        # A daemon: a service that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, wake: Callable[[], object] | None = None, timeout: float = 5.0) -> bool:
        """Ask the work to end, and wait for it.

        Args:
            wake: Interrupts whatever the work waits for, unless that is `Service.wait`.
            timeout: Maximum wait in seconds.

        Returns:
            Whether the thread has ended.
        """
        self._stop.set()
        if wake is not None:
            wake()
        # A service may stop itself, and a thread cannot wait for its own end.
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self.stopping:
            self._set_running(True)
            try:
                self._work(self)
                if not self.stopping:
                    raise _Returned(self.name)
            except BaseException as error:
                self._set_running(False)
                # Errors caused by stopping are expected.
                if self.stopping or self.wait(self.failed(error)):
                    return
        self._set_running(False)


class TaskService(Service):
    """Background work as a task of an event loop."""

    def __init__(
        self,
        name: str,
        work: Callable[[Service], Awaitable[None]],
        fatal: Callable[[str], object] | None,
    ) -> None:
        super().__init__(name, fatal)
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the work and wait until it has ended."""
        self._stop.set()
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self.stopping:
            self._set_running(True)
            try:
                await self._work(self)
                if not self.stopping:
                    raise _Returned(self.name)
            except BaseException as error:
                self._set_running(False)
                if self.stopping or self._cancelled():
                    raise
                # This includes SystemExit and KeyboardInterrupt: if they propagated, they would end
                # the event loop and everything else that runs on it.
                await asyncio.sleep(self.failed(error))
        self._set_running(False)

    def _cancelled(self) -> bool:
        """Whether the task itself is being cancelled, as at the end of its event loop."""
        return self._task is not None and self._task.cancelling() > 0


S = TypeVar("S", bound=Service)


class Supervisor:
    """The background services of a process."""

    def __init__(self, fatal: Callable[[str], object] | None = end_process) -> None:
        """Start with no services.

        Args:
            fatal: Called with the name of a service that cannot be kept running. None for a
                process that is not ours to end: the service is then restarted indefinitely.
        """
        self._fatal = fatal
        self._services: list[Service] = []
        self._lock = threading.Lock()

    def thread(self, name: str, work: Callable[[Service], None]) -> ThreadService:
        """A service in a thread; the caller starts and stops it.

        Args:
            name: Name of the service and of its thread.
            work: Runs until `Service.stopping`; calls `Service.progress` after each round.
        """
        return self._add(ThreadService(name, work, self._fatal))

    def task(self, name: str, work: Callable[[Service], Awaitable[None]]) -> TaskService:
        """A service that runs as a task; the caller starts it on the event loop."""
        return self._add(TaskService(name, work, self._fatal))

    def watched(self, name: str) -> Service:
        """A service that other code runs, and that calls `progress` and `failed` itself."""
        return self._add(Service(name, self._fatal))

    def status(self) -> list[ServiceStatus]:
        """The state of all services."""
        with self._lock:
            return [service.status() for service in self._services]

    def _add(self, service: S) -> S:
        with self._lock:
            self._services.append(service)
        return service


def stack_of_thread(ident: int) -> str:
    """The stack of a thread, as code locations only.

    Args:
        ident: `threading.Thread.ident` of the thread.
    """
    frame = sys._current_frames().get(ident)
    return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""
