"""Reads that several browsers share, so that the cost of a page does not grow with its viewers."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_MOST: Final = 256
"""Maximum cached answers. Beyond that the oldest is dropped."""


class SharedReads:
    """Caches reads for a moment. Concurrent requests share one read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: OrderedDict[Hashable, tuple[float, asyncio.Future[Any]]] = OrderedDict()

    async def get(self, key: Hashable, max_age: float, read: Callable[[], Awaitable[T]]) -> T:
        """An answer that is at most so old, or a new one.

        Args:
            key: Identifies the answer and its viewer.
            max_age: Seconds; 0 for a new answer.
            read: Reads it.
        """
        known = self._answers.get(key)
        if known is not None and self._clock() - known[0] < max_age:
            # Shielded: the read must not be cancelled with one of the waiting requests.
            answer: T = await asyncio.shield(known[1])
            return answer
        reading = asyncio.ensure_future(read())
        self._answers[key] = (self._clock(), reading)
        self._answers.move_to_end(key)
        reading.add_done_callback(lambda done: self._done(key, done))
        if len(self._answers) > _MOST:
            self._answers.popitem(last=False)
        return await asyncio.shield(reading)

    def _done(self, key: Hashable, reading: asyncio.Future[Any]) -> None:
        # Errors are not cached: only requests that are waiting now get them.
        failed = reading.cancelled() or reading.exception() is not None
        known = self._answers.get(key)
        if failed and known is not None and known[1] is reading:
            del self._answers[key]
