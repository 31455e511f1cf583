"""A stack whose workers may differ, die with all that is beside them, and are started again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from orchestrator.stack import Child, Stack


class Fleet(Stack):
    """A stack that acts as the supervisor of its workers, as systemd or Kubernetes would."""

    _extra: Mapping[str, str] = {}

    def start_worker(self, env: Mapping[str, str] | None = None) -> Child:
        """Start one more worker.

        Args:
            env: Variables of this worker only; they win over the fleet's.
        """
        self._extra = env or {}
        try:
            return super().start_worker()
        finally:
            self._extra = {}

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._extra}

    def replace_dead(self) -> list[Child]:
        """Start a worker for each that has ended by itself; returns those that had."""
        dead = [worker for worker in self.workers if worker.exit_code is not None]
        for worker in dead:
            self.workers.remove(worker)
            self.start_worker()
        return dead


def beside(worker: Child) -> list[psutil.Process]:
    """All processes that a worker started, and those that they started."""
    try:
        return psutil.Process(worker.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lose_machine(stack: Stack, worker: Child) -> None:
    """A worker and everything beside it is gone at once: nobody is left to tell of it."""
    with frozen(worker):
        # Nothing that it starts meanwhile can escape, and no watchdog sees it die first.
        for process in reversed(beside(worker)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        worker.kill()
    stack.workers.remove(worker)


@contextmanager
def frozen(worker: Child) -> Iterator[None]:
    """A worker and everything beside it stand still; what still lives then goes on."""
    worker.signal(signal.SIGSTOP)
    others = beside(worker)
    for process in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in others:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        worker.signal(signal.SIGCONT)


def is_ready(worker: Child) -> bool:
    """Whether a worker takes turns."""
    return worker.exit_code is None and " ready." in worker.log.read_text(errors="replace")
