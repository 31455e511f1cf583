"""Threads for synchronous tools: never the event loop, never in the way of the process's end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from agentapi.faults import named
from agentapi.settings import load_settings

T = TypeVar("T")

_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)


async def run_in_tool_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread of its own, with the caller's context variables.

    At most `AGENTAPI_TOOL_THREADS` at once. A thread cannot be stopped: when the caller goes on
    without it, it keeps its place until it ends. Daemon threads, unlike those of an executor,
    do not keep a process that was told to stop.
    """
    loop = asyncio.get_running_loop()
    places = _places.get(loop)
    if places is None:
        places = _places[loop] = asyncio.Semaphore(load_settings().tool_threads)
    await places.acquire()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        places.release()
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
    threading.Thread(target=context.run, args=(work,), name="agentapi-tool", daemon=True).start()
    return await answer
