"""Blocking calls of a producer, made from an event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BlockingCalls:
    """Runs short blocking calls in a few dedicated threads.

    The event loop's default threads are shared with the application and may all be busy.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Create the pool; its threads start when first used.

        Args:
            threads: Number of threads. Each holds at most one connection to Redis.
            name: Prefix of the threads' names.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def __call__(self, function: Callable[[], T]) -> T:
        """Run a call in one of the threads; returns or raises what the call does.

        It has the caller's context variables, such as the span that it belongs to.
        """
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._pool, run, function)

    def close(self) -> None:
        """End the threads after the running calls."""
        self._pool.shutdown(wait=False)
