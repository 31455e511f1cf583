"""Liveness: a process that no longer works ends itself.

A process whose event loop is blocked would still renew its leases and claim turns, but run none. So
a thread keeps asking the loop and the store's threads. When one of them has not answered for too
long, the process ends: its watchdog frees the turns, and other workers continue them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from agentapi.logs import LogLine, line
from agentapi.supervision import Service, Supervisor, end_process, stack_of_thread

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("agentapi.liveness")

TICK: Final = 1.0
"""Seconds between two checks."""

SLOW: Final = 3.0
"""Seconds of silence after which a part gets no further work until it answers."""

SHORTEST_BOUND: Final = 10.0
"""Seconds. A shorter time would mistake users' slow code on the loop for a dead loop."""


def bound(lease_ttl: float) -> float:
    """Seconds of silence after which the process ends."""
    return max(2 * lease_ttl, SHORTEST_BOUND)


class StoreThreads(ThreadPoolExecutor):
    """Threads that talk to Redis for all turns, and count the calls that they finish."""

    def __init__(self, count: int) -> None:
        super().__init__(count, thread_name_prefix="agentapi-store")
        self.done = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor.submit`."""

        def work() -> T:
            try:
                return fn(*args, **kwargs)
            finally:
                # Without a lock: a lost count does not matter, since only a change is looked for.
                self.done += 1

        return super().submit(work)

    def where(self) -> str:
        """The stacks of the threads, as code locations."""
        stacks = [stack_of_thread(thread.ident or 0) for thread in self._threads]
        return "\n--\n".join(stacks)


def starved(native_id: int) -> float:
    """Seconds for which a thread of this process was ready to run but got no processor.

    Args:
        native_id: The system's id of the thread.

    Returns:
        The seconds; 0 where the system does not report them.
    """
    try:
        waited = Path(f"/proc/self/task/{native_id}/schedstat").read_text().split()[1]
    except (OSError, IndexError):
        return 0.0
    return int(waited) / 1e9


@dataclass(kw_only=True)
class Probe:
    """A part of the process whose liveness is checked.

    Attributes:
        name: Name of the part.
        ask: Makes the part call the given function.
        bound: Seconds of silence after which the part is dead.
        excused: Whether the part has a valid reason to be silent now.
        where: Its stack, for the log.
        starved: Seconds for which it was ready to run but got no processor; they do not count.
        silent: Seconds since it answered, without time in which the process could not run.
    """

    name: str
    ask: Callable[[Callable[[], None]], object]
    bound: float
    excused: Callable[[], bool] = lambda: False
    where: Callable[[], str] = lambda: ""
    starved: Callable[[], float] = lambda: 0.0
    silent: float = 0.0
    _asked: bool = field(default=False, init=False)
    _answered: bool = field(default=False, init=False)
    _starved: float = field(default=0.0, init=False)

    def look(self, passed: float) -> bool:
        """Check for an answer and ask again; returns whether the part is alive."""
        before, self._starved = self._starved, self.starved()
        if self._answered or not self._asked or self.excused():
            self.silent = 0.0
        else:
            # Time without a processor is the machine's fault: a process on a busy machine must not
            # be killed for it.
            self.silent += max(0.0, passed - max(0.0, self._starved - before))
        if self._answered or not self._asked:
            self._answered, self._asked = False, True
            try:
                self.ask(self._answer)
            except RuntimeError:
                # The loop is closed or the executor shut down: no answer will come.
                log.debug(line("probe.refused", what=self.name))
            except BaseException:
                # It could not be asked, so its silence proves nothing.
                self._asked = False
                raise
        return self.silent < self.bound

    def _answer(self) -> None:
        self._answered = True


class Liveness:
    """A thread that asks all parts, and ends the process when one does not answer."""

    def __init__(
        self,
        probes: list[Probe],
        supervisor: Supervisor,
        *,
        also: Callable[[], object] = lambda: None,
        die: Callable[[str], object] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the thread; it does not start yet.

        Args:
            probes: The parts to ask.
            supervisor: The process's supervisor.
            also: Called after each round of questions.
            die: Ends the process, because of the named part.
            clock: Seconds.
        """
        self._probes = probes
        self._also = also
        self._die = die
        self._clock = clock
        self._service = supervisor.thread("agentapi-liveness", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._service.start()

    def stop(self) -> None:
        """End the thread."""
        self._service.stop()

    def _run(self, service: Service) -> None:
        before = self._clock()
        while not service.wait(TICK):
            now = self._clock()
            # If this thread itself is late, the machine is slow or the whole process was paused.
            # That time does not count as silence of the parts.
            self.look(min(now - before, TICK))
            before = now
            self._also()
            service.progress()

    def look(self, passed: float) -> None:
        """Ask all parts, `passed` seconds after the last time."""
        for probe in self._probes:
            if probe.look(passed):
                continue
            fields: dict[str, object] = {"what": probe.name, "seconds": round(probe.silent, 1)}
            log.critical(LogLine("process.stalled", fields, probe.where()))
            self._die(probe.name)

    def alive(self) -> bool:
        """Whether every part has answered in time. Only then may the process renew its leases."""
        return all(probe.silent < probe.bound for probe in self._probes)

    def responsive(self) -> bool:
        """Whether every part answers soon enough for the process to take further turns."""
        return all(probe.silent < SLOW for probe in self._probes)

    def silence(self) -> dict[str, float]:
        """Seconds since each part answered; see `Probe.silent`."""
        return {probe.name: round(probe.silent, 1) for probe in self._probes}


def threads_probe(
    threads: StoreThreads, *, bound: float, excused: Callable[[], bool], where: Callable[[], str]
) -> Probe:
    """Asks the store's threads. Any call they finish is an answer, however long their queue is."""
    seen = -1

    def ask(answer: Callable[[], None]) -> Future[Any]:
        return threads.submit(answer)

    def moved() -> bool:
        nonlocal seen
        before, seen = seen, threads.done
        return before != seen

    return Probe(
        name="store-threads",
        ask=ask,
        bound=bound,
        excused=lambda: moved() or excused(),
        where=where,
    )
