"""Threads for synchronous tools: one pool a process, never the event loop.

Not asyncio's default pool, whose size follows the number of cores: tools wait.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from agentapi.settings import load_settings

T = TypeVar("T")


@lru_cache(maxsize=1)
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        max_workers=load_settings().tool_threads, thread_name_prefix="agentapi-tool"
    )


async def run_in_tool_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread, with the caller's context variables."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_executor(), context.run, call)
