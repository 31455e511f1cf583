"""The turns that run in this process, and how to stop them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from agentapi.metrics.activity import RunningNow
from agentapi.stores import Lease

T = TypeVar("T")


class StopReason(StrEnum):
    """Why a turn is stopped from outside."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    SHUTDOWN = "shutdown"


@dataclass(eq=False, kw_only=True)
class RunningTurn:
    """A turn between its claim and its close: a task of the event loop, without a thread.

    Its blocking calls run in `threads`, which all turns of the process share. `about` describes its
    current activity, for views of the fleet.
    """

    lease: Lease
    loop: asyncio.AbstractEventLoop
    threads: Executor
    job: int = 0
    about: Callable[[], RunningNow] | None = None
    reason: StopReason | None = None
    _task: asyncio.Task[Any] | None = None
    _heard: bool = False

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """On the event loop: run the agent loop, which `stop` cancels.

        Raises:
            asyncio.CancelledError: `stop` was called; `reason` says why.
            Exception: Whatever the coroutine raises.
        """
        if self.reason is not None:
            # Stopped after the claim or between two attempts, when there was no task to cancel.
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        try:
            return await work()
        except asyncio.CancelledError:
            # `stop` cancels only the agent loop: the task must continue in order to close the turn.
            if self._task is not None:
                self._task.uncancel()
            raise
        finally:
            self._task = None

    async def call(self, function: Callable[[], T]) -> T:
        """From the event loop: make a blocking call in one of the threads.

        A caller that is cancelled in the meantime still waits for the call to finish. So nothing of
        a turn is written after the turn's ending.
        """
        # The pool's few threads serve all turns: a turn that waits for a model holds none of them.
        answer = self.loop.run_in_executor(self.threads, function)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await asyncio.wait([answer])
            # Marks the error as seen, or asyncio would log it as never retrieved.
            answer.exception()
            raise

    def stop(self, reason: StopReason) -> None:
        """From any thread: cancel the agent loop once. The first reason counts.

        May be repeated, as the heartbeat does: an earlier request may have failed on its way.
        """
        if self.reason is None:
            self.reason = reason
        if not self._heard:
            # A task may only be cancelled in the thread of its loop.
            self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        # Between two attempts there is no task: `run` checks `reason` before the next one.
        if self._task is not None and not self._heard:
            self._heard = True
            self._task.cancel()


class RunningTurns:
    """All running turns of the process."""

    def __init__(self) -> None:
        self._turns: set[RunningTurn] = set()
        # The store's threads add and remove; heartbeat and shutdown read from threads of their own.
        self._changed = threading.Condition()

    def add(self, turn: RunningTurn) -> None:
        """Add a turn that was claimed."""
        with self._changed:
            self._turns.add(turn)

    def remove(self, turn: RunningTurn) -> None:
        """Remove a turn that was closed."""
        with self._changed:
            self._turns.discard(turn)
            self._changed.notify_all()

    def all(self) -> list[RunningTurn]:
        """The running turns."""
        with self._changed:
            return list(self._turns)

    def wait_until_none(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until no turn runs; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._turns, timeout)

    def stop_job(self, job: int, reason: StopReason) -> None:
        """Stop the turn of one of the pool's jobs, if it runs."""
        for turn in self.all():
            if turn.job == job:
                turn.stop(reason)
