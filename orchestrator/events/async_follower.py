"""Follows the events of thousands of turns on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agentapi.errors import AgentAPIError, StoreFault, StoreUnavailable
from agentapi.stores import TurnStore
from agentapi.turns import Event
from orchestrator.blocking import BlockingCalls
from orchestrator.events.follower import PAGE, Delivery, EventFollower, Subscription


class Closed(StrEnum):
    """Why a reader gets no more events before its turn's end."""

    SLOW = "slow"
    """The subscriber read too slowly, and too many events are waiting."""
    STOPPING = "stopping"
    """The process shuts down."""
    UNREADABLE = "unreadable"
    """The turn's stored events cannot be read."""


@dataclass(frozen=True)
class _OnLoop:
    """Passes the follower's events to an event loop, with one call for each read."""

    loop: asyncio.AbstractEventLoop

    def __call__(self, batch: Sequence[tuple[Subscription, Delivery]]) -> None:
        # Raises if the loop is closed; the follower then drops these subscriptions.
        self.loop.call_soon_threadsafe(_take, batch)


def _take(batch: Sequence[tuple[Subscription, Delivery]]) -> None:
    for subscription, delivery in batch:
        if isinstance(subscription, Buffer):
            subscription.take(delivery)


class Buffer(Subscription):
    """A subscription on an event loop, which buffers events for its reader.

    `after` belongs to the follower's thread; everything else to the event loop.

    Attributes:
        closed: Why no more events come, or None.
        seen: Number of the newest event that was buffered.
    """

    def __init__(
        self,
        turn_id: str,
        after: int,
        limit: int | None,
        unsubscribe: Callable[[Subscription], None],
    ) -> None:
        """Create an empty buffer. Call it on the event loop.

        Args:
            turn_id: The turn.
            after: Number of the last event already seen.
            limit: Maximum number of buffered events; None for no limit.
            unsubscribe: Called when the buffer is closed, to stop reading for it.
        """
        super().__init__(turn_id, after, _OnLoop(asyncio.get_running_loop()))
        self._unsubscribe = unsubscribe
        self.closed: Closed | None = None
        self.seen = after
        self._error: AgentAPIError | None = None
        self._limit = limit
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()

    def take(self, delivery: Delivery) -> None:
        """Buffer the events that are new. Close the buffer if they exceed its limit."""
        match delivery:
            case StoreFault():
                self.close(Closed.UNREADABLE)
            case AgentAPIError():
                self._error = delivery
            case _:
                self._add(delivery)
        self._ready.set()

    def _add(self, events: Sequence[Event]) -> None:
        for event in events:
            # Events that `AsyncFollower` looked up by itself arrive here again.
            if event.number <= self.seen or self.closed is not None:
                continue
            # A slow reader must neither delay the others nor fill the memory. So its buffer is
            # closed, and it resumes after the last event that it got (promise 10).
            if self._limit is not None and len(self._events) >= self._limit:
                self.close(Closed.SLOW)
                return
            self.seen = event.number
            self._events.append(event)

    def close(self, why: Closed) -> None:
        """Accept no more events."""
        self.closed = self.closed or why
        self._unsubscribe(self)
        self._ready.set()

    async def next(self, max_wait: float) -> list[Event]:
        """The buffered events. Waits up to `max_wait` seconds for an event or for `close`.

        Raises:
            AgentAPIError: Events cannot be read; see `EventFollower`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self._ready.wait()
        self._ready.clear()
        # A closed buffer stays ready, so that nobody waits for events that cannot come.
        if self.closed is not None:
            self._ready.set()
        events = self.taken()
        if not events and self._error is not None:
            raise self._error
        return events

    def taken(self) -> list[Event]:
        """The buffered events, without waiting."""
        events = list(self._events)
        self._events.clear()
        return events


class AsyncFollower:
    """The asyncio interface of an `EventFollower`. Waiting readers occupy no threads.

    Attributes:
        stopping: Whether `stop` was called.
    """

    def __init__(
        self,
        follower: EventFollower,
        store: TurnStore,
        call: BlockingCalls,
        limit: int | None = None,
    ) -> None:
        """Wrap a follower.

        Args:
            follower: Reads the events.
            store: Where past events are read.
            call: Runs short blocking calls of the follower and the store.
            limit: Maximum number of buffered events for each reader.
        """
        self._follower = follower
        self._store = store
        self._call = call
        self._limit = limit
        self._buffers: set[Buffer] = set()
        self.stopping = False

    @property
    def fresh(self) -> bool:
        """Whether the follower still reads events; see `EventFollower.fresh`."""
        return self._follower.fresh

    def start(self) -> None:
        """Start reading now instead of with the first reader."""
        self._follower.start()

    def stop(self) -> None:
        """End all current and later readers."""
        self.stopping = True
        for buffer in self._buffers:
            buffer.close(Closed.STOPPING)

    async def past(self, turn_id: str, after: int, count: int = PAGE) -> list[Event]:
        """The next stored events after a number.

        Raises:
            StoreUnavailable: Redis is out of reach.
            StoreFault: The key does not hold a stream of events.
        """
        found = await self._call(lambda: self._store.events({turn_id: after}, 0, count))
        return found.get(turn_id, [])

    async def follow(
        self, turn_id: str, after: int, *, max_wait: float, fresh: bool = False
    ) -> AsyncGenerator[list[Event] | Closed, None]:
        """A turn's events after a number, as they arrive, until the one that ends it.

        Past events are read as fast as the caller takes them; new events are buffered. If no events
        arrive for a while, Redis is read directly, so that a hung follower only delays its readers.

        Args:
            turn_id: The turn.
            after: Number of the last event already seen; -1 for all.
            max_wait: Seconds without events after which an empty list is yielded.
            fresh: Whether the turn is so new that no past events need to be read first.

        Yields:
            Events; or, as the last item, why no more events come although the turn continues.

        Raises:
            StoreUnavailable: Redis is out of reach at the beginning, or refuses the password for
                too long.
        """
        # Read page by page, as fast as the caller: a long past would overflow the buffer.
        while not fresh and (page := await self.past(turn_id, after)):
            yield page
            after = page[-1].number
            if page[-1].type.ends:
                return
            fresh = len(page) < PAGE
        buffer = Buffer(turn_id, after, self._limit, self._follower.unsubscribe)
        self._buffers.add(buffer)
        try:
            if self.stopping:
                buffer.close(Closed.STOPPING)
            elif self._follower.add(buffer):
                # A round trip to Redis, so it runs in a thread and not on the event loop.
                await self._call(self._follower.nudge)
            while True:
                events = await buffer.next(max_wait)
                # Deliver the events that arrived before the buffer was closed.
                if not events and buffer.closed is not None:
                    yield buffer.closed
                    return
                events = events or await self._look(buffer)
                yield events
                if events and events[-1].type.ends:
                    return
        finally:
            self._buffers.discard(buffer)
            self._follower.unsubscribe(buffer)

    async def _look(self, buffer: Buffer) -> list[Event]:
        """Events that the follower did not deliver; none while Redis is out of reach."""
        count = PAGE if self._limit is None else min(PAGE, self._limit)
        try:
            found = await self.past(buffer.turn_id, buffer.seen, count)
        except StoreUnavailable:
            return []
        buffer.take(found)
        # Go through the buffer, which drops events that the follower delivers again.
        return buffer.taken()
