"""Celery's `threads` pool, with a bounded shutdown and turns that can be terminated.

The stock pool waits for ever at SIGTERM and cannot terminate a job (celery 5.7,
celery/concurrency/thread.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool

from workers.running import StopReason


class TurnPool(TaskPool):
    """A thread a turn in flight."""

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        """Run a task in a thread, which stands for Celery's process id of the job."""

        def run() -> None:
            thread = threading.get_ident()
            apply_target(target, args, kwargs, callback, accept_callback, pid=thread)

        return ApplyResult(self.executor.submit(run))

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Cancel the turn that runs in the thread `pid` (Flower's and `celery`'s terminate)."""
        self.app.runtime.running.stop_thread(pid, StopReason.CANCELLED)

    def on_stop(self) -> None:
        """Take nothing more; give turns their grace, hand the rest back, wait for the threads."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.app.runtime.drain()
        super().on_stop()

    def on_terminate(self) -> None:
        """Hand all turns back at once."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.app.runtime.hand_back()
