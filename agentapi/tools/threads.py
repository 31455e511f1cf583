"""Threads for synchronous tools, which must block neither the event loop nor process exit."""

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
"""For an event loop without configuration, for example when a test calls a tool directly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolThreads:
    """The state of an event loop's tool threads.

    Attributes:
        places: Maximum number of threads.
        taken: Current number of threads.
        stuck: Seconds since all places were taken during which no thread has ended.
    """

    places: int
    taken: int
    stuck: float


class _Places:
    """Counts threads against their limit, and measures for how long it has been reached."""

    def __init__(self, count: int) -> None:
        self._count = count
        # Changed only on the event loop, to which threads report; so no lock is needed.
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
    """Set the maximum number of tool threads of an event loop.

    The owner of the loop calls this before turns run on it. Later calls have no effect, because
    running threads hold places of the first limit.
    """
    if loop not in _places:
        _places[loop] = _Places(count)


def tool_threads(loop: asyncio.AbstractEventLoop) -> ToolThreads:
    """The state of the loop's tool threads. May be called from any thread."""
    places = _places.get(loop)
    return places.standing() if places is not None else ToolThreads(places=0, taken=0, stuck=0.0)


async def run_in_tool_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread of its own, with the caller's context variables.

    Waits while the event loop has the maximum number of threads (`limit_tool_threads`). A thread
    cannot be stopped: if the caller gives up, for example after a timeout, the thread keeps its
    place until the call returns. Daemon threads, unlike those of an executor, do not delay the
    exit of the process.
    """
    loop = asyncio.get_running_loop()
    limit_tool_threads(loop, DEFAULT_TOOL_THREADS)
    places = _places[loop]
    await places.take()
    # A future of the loop: it may be settled only there, never in the thread.
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        places.leave()
        # The caller gave up: its place is free, but nobody wants the result.
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        elif isinstance(error, StopIteration | GeneratorExit):
            # Futures refuse StopIteration; GeneratorExit would close every awaiting coroutine.
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
        # The loop may be closed already; then nobody waits for the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="agentapi-tool", daemon=True)
    try:
        thread.start()
    except BaseException:
        # The system cannot start another thread.
        places.leave()
        raise
    return await answer
