"""The turns that run in this process, and how they are stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from queue import SimpleQueue
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
    """A turn between its claim and its end, served by one pool thread and one asyncio task.

    The agent loop runs on the event loop. Meanwhile the pool thread, which would only wait for
    it, makes the loop's blocking calls: `call` hands it one.
    """

    lease: Lease
    loop: asyncio.AbstractEventLoop
    thread_id: int = field(default_factory=threading.get_ident)
    reason: StopReason | None = None
    _task: asyncio.Task[Any] | None = None
    _calls: SimpleQueue[Callable[[], None] | None] = field(default_factory=SimpleQueue)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the event loop, serving its calls, until it ends.

        Raises:
            asyncio.CancelledError: `stop` was called; `reason` says why.
            Exception: Whatever the coroutine raises.
        """

        async def main() -> T:
            self._task = asyncio.current_task()
            if self.reason is not None:
                raise asyncio.CancelledError
            return await work()

        future = asyncio.run_coroutine_threadsafe(main(), self.loop)
        future.add_done_callback(lambda _: self._calls.put(None))
        while (call := self._calls.get()) is not None:
            call()
        try:
            return future.result()
        except BaseException as error:
            # concurrent.futures has a CancelledError of its own.
            if future.cancelled():
                raise asyncio.CancelledError from error
            raise

    async def call(self, function: Callable[[], T]) -> T:
        """From the event loop: make a blocking call in the turn's thread."""
        answer: asyncio.Future[T] = self.loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def serve() -> None:
            try:
                result = function()
            except BaseException as error:
                self.loop.call_soon_threadsafe(settle, None, error)
            else:
                self.loop.call_soon_threadsafe(settle, result, None)

        self._calls.put(serve)
        return await answer

    def stop(self, reason: StopReason) -> None:
        """From any thread: cancel the agent loop. The first reason stands."""
        if self.reason is None:
            self.reason = reason
            self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
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

    def stop_thread(self, thread_id: int, reason: StopReason) -> None:
        """Stop the turn of a pool thread, if it has one."""
        for turn in self.all():
            if turn.thread_id == thread_id:
                turn.stop(reason)
