"""Blocking calls of a producer, made from an event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class BlockingCalls:
    """Runs short blocking calls in a few threads of their own.

    The event loop's default threads are shared with the application, and may all be busy with
    something slow.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Create the pool; its threads start when first used.

        Args:
            threads: How many. Each holds at most one connection to Redis.
            name: Prefix of the threads' names.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def __call__(self, function: Callable[[], T]) -> T:
        """Run a call in one of the threads, and return or raise what it does.

        It has the caller's context variables, such as the span that it belongs to.
        """
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._pool, run, function)

    def close(self) -> None:
        """Let the threads end after the calls that run."""
        self._pool.shutdown(wait=False)
