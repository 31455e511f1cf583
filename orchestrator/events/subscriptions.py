"""Somebody's wish to get a turn's events, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from enum import StrEnum

from agentapi.turns import Event


class Closed(StrEnum):
    """Why a subscription gets no more events before its turn's end."""

    SLOW = "slow"
    """Its reader let too many events wait."""
    STOPPING = "stopping"
    """The gateway shuts down."""
    UNREADABLE = "unreadable"
    """What is stored of the turn cannot be read."""


class Subscription:
    """Somebody's wish to get a turn's events after a number, each once, in order.

    Attributes:
        turn_id: The turn.
        after: Number of the newest event that was delivered to it.
        closed: Why nothing more comes, or None.
    """

    def __init__(self, turn_id: str, after: int, limit: int) -> None:
        self.turn_id = turn_id
        self.after = after
        self.closed: Closed | None = None
        self._limit = limit
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()

    def deliver(self, events: Sequence[Event]) -> None:
        """Take those that are new; too many at once waiting close the subscription."""
        for event in events:
            if event.number > self.after and self.closed is None:
                if len(self._events) >= self._limit:
                    self.close(Closed.SLOW)
                    return
                self.after = event.number
                self._events.append(event)
        self._ready.set()

    def close(self, why: Closed) -> None:
        """Let nothing more come."""
        self.closed = self.closed or why
        self._ready.set()

    async def next(self, patience: float) -> list[Event]:
        """What has arrived; waits up to `patience` seconds for something, or the close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._ready.wait()
        self._ready.clear()
        if self.closed is not None:
            self._ready.set()
        return self.taken()

    def taken(self) -> list[Event]:
        """What has arrived; waits for nothing."""
        arrived = list(self._events)
        self._events.clear()
        return arrived
