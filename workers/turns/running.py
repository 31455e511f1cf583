"""The turns that run in this process, and how they are stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from agentapi.stores import Lease

T = TypeVar("T")


class StopReason(StrEnum):
    """Why a running turn is stopped from outside."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    SHUTDOWN = "shutdown"


@dataclass(eq=False, kw_only=True)
class RunningTurn:
    """A turn between its claim and its end: a task of the event loop, and no thread.

    Its blocking calls are made in `threads`, which all turns of the process share.
    """

    lease: Lease
    loop: asyncio.AbstractEventLoop
    threads: Executor
    job: int = 0
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
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        try:
            return await work()
        except asyncio.CancelledError:
            # Only the agent loop was meant: what comes behind it goes on.
            if self._task is not None:
                self._task.uncancel()
            raise
        finally:
            self._task = None

    async def call(self, function: Callable[[], T]) -> T:
        """From the event loop: make a blocking call in one of the threads.

        Who is cancelled meanwhile waits for its end, so that nothing of a turn is written behind
        the turn's own end.
        """
        answer = self.loop.run_in_executor(self.threads, function)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await asyncio.wait([answer])
            answer.exception()
            raise

    def stop(self, reason: StopReason) -> None:
        """From any thread: cancel the agent loop, once. The first reason stands.

        May be repeated, and is by the heartbeat: whoever asked last may have failed.
        """
        if self.reason is None:
            self.reason = reason
        if not self._heard:
            self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self._heard:
            self._heard = True
            self._task.cancel()


class RunningTurns:
    """All running turns of the process."""

    def __init__(self) -> None:
        self._turns: set[RunningTurn] = set()
        self._changed = threading.Condition()

    def add(self, turn: RunningTurn) -> None:
        """A turn begins."""
        with self._changed:
            self._turns.add(turn)

    def remove(self, turn: RunningTurn) -> None:
        """A turn has ended here."""
        with self._changed:
            self._turns.discard(turn)
            self._changed.notify_all()

    def all(self) -> list[RunningTurn]:
        """The turns that run now."""
        with self._changed:
            return list(self._turns)

    def wait_until_none(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; returns whether none runs any more."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._turns, timeout)

    def stop_job(self, job: int, reason: StopReason) -> None:
        """Stop the turn of one of the pool's jobs, if it runs."""
        for turn in self.all():
            if turn.job == job:
                turn.stop(reason)
