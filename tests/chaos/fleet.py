"""A stack whose workers can differ, die with all their processes, and are restarted."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from orchestrator.stack import Child, Stack


class Fleet(Stack):
    """A stack that supervises its workers, as systemd or Kubernetes would."""

    _extra: Mapping[str, str] = {}

    def start_worker(self, env: Mapping[str, str] | None = None) -> Child:
        """Start one more worker.

        Args:
            env: Variables of this worker only; they override the fleet's.
        """
        self._extra = env or {}
        try:
            return super().start_worker()
        finally:
            self._extra = {}

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._extra}

    def replace_dead(self) -> list[Child]:
        """Replace each worker that ended by itself; returns the ended ones."""
        dead = [worker for worker in self.workers if worker.exit_code is not None]
        for worker in dead:
            self.workers.remove(worker)
            self.start_worker()
        return dead


def beside(worker: Child) -> list[psutil.Process]:
    """All descendant processes of a worker."""
    try:
        return psutil.Process(worker.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lose_machine(stack: Stack, worker: Child) -> None:
    """Kill a worker with all its processes at the same time, so that none can report it."""
    with frozen(worker):
        # No new process can escape in the meantime, and no watchdog sees the worker die first.
        for process in reversed(beside(worker)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        worker.kill()
    stack.workers.remove(worker)


@contextmanager
def frozen(worker: Child) -> Iterator[None]:
    """Pause a worker with all its processes during the block; those still alive continue after
    it."""
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
