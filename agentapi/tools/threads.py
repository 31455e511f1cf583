"""Threads for synchronous tools: never the event loop, never in the way of the process's end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agentapi.faults import named

T = TypeVar("T")

DEFAULT_TOOL_THREADS: Final = 64
"""Threads of an event loop that nobody configured, as when a test calls a tool by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolThreads:
    """How an event loop's tool threads stand.

    Attributes:
        places: How many there may be.
        taken: How many there are.
        stuck: Seconds for which all places have been taken and no thread has ended.
    """

    places: int
    taken: int
    stuck: float


class _Places:
    """Places for threads, and since when none has become free."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._taken = 0
        self._full_since: float | None = None

    async def take(self) -> None:
        await self._free.acquire()
        self._taken += 1
        if self._taken == self._count:
            self._full_since = time.monotonic()

    def leave(self) -> None:
        self._taken -= 1
        self._full_since = None
        self._free.release()

    def standing(self) -> ToolThreads:
        since = self._full_since
        stuck = 0.0 if since is None else time.monotonic() - since
        return ToolThreads(places=self._count, taken=self._taken, stuck=stuck)


_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Places] = weakref.WeakKeyDictionary()


def limit_tool_threads(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Set how many tool threads an event loop may have at the same time.

    Whoever owns the loop calls this before turns run on it. Later calls change nothing: a bound
    that moved while threads hold places would be no bound.
    """
    if loop not in _places:
        _places[loop] = _Places(count)


def tool_threads(loop: asyncio.AbstractEventLoop) -> ToolThreads:
    """How the loop's tool threads stand; from any thread."""
    places = _places.get(loop)
    return places.standing() if places is not None else ToolThreads(places=0, taken=0, stuck=0.0)


async def run_in_tool_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread of its own, with the caller's context variables.

    At most as many at the same time as `limit_tool_threads` allows the event loop. A thread cannot
    be stopped: when the caller goes on without it, it keeps its place until it ends. Daemon
    threads, unlike those of an executor, do not keep a process that was told to stop.
    """
    loop = asyncio.get_running_loop()
    limit_tool_threads(loop, DEFAULT_TOOL_THREADS)
    places = _places[loop]
    await places.take()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        places.leave()
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        elif isinstance(error, StopIteration | GeneratorExit):
            # No future takes the one; the other closes every coroutine that awaits it.
            answer.set_exception(RuntimeError(f"the tool raised {named(error)}"))
        else:
            answer.set_exception(error)

    def work() -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = call()
        except BaseException as error:
            failure = error
        # The loop may be closed by now; then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="agentapi-tool", daemon=True)
    try:
        thread.start()
    except BaseException:
        # The system has no thread left.
        places.leave()
        raise
    return await answer
