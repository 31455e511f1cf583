"""Following the events of thousands of turns on an event loop."""

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
    """Takes the follower's events on an event loop, with one hand-over for each read."""

    loop: asyncio.AbstractEventLoop

    def __call__(self, batch: Sequence[tuple[Subscription, Delivery]]) -> None:
        # Raises when the loop is closed; the follower then drops these subscriptions.
        self.loop.call_soon_threadsafe(_take, batch)


def _take(batch: Sequence[tuple[Subscription, Delivery]]) -> None:
    for subscription, delivery in batch:
        if isinstance(subscription, Buffer):
            subscription.take(delivery)


class Buffer(Subscription):
    """A subscription on an event loop: events wait here for their reader.

    `after` belongs to the follower's thread; everything else to the event loop.

    Attributes:
        closed: Why nothing more comes, or None.
        seen: Number of the newest event that was put here.
    """

    def __init__(
        self,
        turn_id: str,
        after: int,
        limit: int | None,
        unsubscribe: Callable[[Subscription], None],
    ) -> None:
        """Create an empty buffer, on the event loop.

        Args:
            turn_id: The turn.
            after: Number of the last event already seen.
            limit: Most events that may wait; None for no limit.
            unsubscribe: Called when the buffer is closed, so that nothing more is read for it.
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
        """Take those events that are new. More than may wait close the buffer."""
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
            # What `AsyncFollower` looked up by itself arrives here again.
            if event.number <= self.seen or self.closed is not None:
                continue
            # One slow reader must neither hold up the others nor fill the memory: it is closed, and
            # resumes after the last event that it got (promise 10).
            if self._limit is not None and len(self._events) >= self._limit:
                self.close(Closed.SLOW)
                return
            self.seen = event.number
            self._events.append(event)

    def close(self, why: Closed) -> None:
        """Take nothing more."""
        self.closed = self.closed or why
        self._unsubscribe(self)
        self._ready.set()

    async def next(self, max_wait: float) -> list[Event]:
        """The events that wait here; waits up to `max_wait` seconds for one, or for the close.

        Raises:
            AgentAPIError: Events cannot be read; see `EventFollower`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self._ready.wait()
        self._ready.clear()
        # A closed buffer stays ready, so that nobody waits for what cannot come.
        if self.closed is not None:
            self._ready.set()
        events = self.taken()
        if not events and self._error is not None:
            raise self._error
        return events

    def taken(self) -> list[Event]:
        """The events that wait here, without waiting for any."""
        events = list(self._events)
        self._events.clear()
        return events


class AsyncFollower:
    """The asyncio face of an `EventFollower`: a waiting reader takes no thread.

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
        """Create the face of a follower.

        Args:
            follower: Reads the events.
            store: For events that were there before.
            call: For short calls of either.
            limit: Most events that may wait for one reader.
        """
        self._follower = follower
        self._store = store
        self._call = call
        self._limit = limit
        self._buffers: set[Buffer] = set()
        self.stopping = False

    @property
    def fresh(self) -> bool:
        """Whether events are read; see `EventFollower.fresh`."""
        return self._follower.fresh

    def start(self) -> None:
        """Begin to read now; otherwise the first reader begins it."""
        self._follower.start()

    def stop(self) -> None:
        """End all readers, and those that come later."""
        self.stopping = True
        for buffer in self._buffers:
            buffer.close(Closed.STOPPING)

    async def past(self, turn_id: str, after: int, count: int = PAGE) -> list[Event]:
        """The next events after a number that are there already.

        Raises:
            StoreUnavailable: Redis is out of reach.
            StoreFault: The key does not hold a stream of events.
        """
        found = await self._call(lambda: self._store.events({turn_id: after}, 0, count))
        return found.get(turn_id, [])

    async def follow(
        self, turn_id: str, after: int, *, max_wait: float, fresh: bool = False
    ) -> AsyncGenerator[list[Event] | Closed, None]:
        """A turn's events after a number, as they come, until the one that ends it.

        Past events are read as fast as the caller takes them; events to come wait in a buffer.
        When none came for a while, Redis is asked directly, so that a follower that hangs delays
        a reader and does not stop it.

        Args:
            turn_id: The turn.
            after: Number of the last event already seen; -1 for all.
            max_wait: Seconds after which an empty list says that nothing happened.
            fresh: Whether the turn can have no long past, which saves looking for it.

        Yields:
            Events; or, as the last thing, why no more come although the turn goes on.

        Raises:
            StoreUnavailable: Redis is out of reach at the beginning, or refuses the password for
                long.
        """
        # Page by page, as fast as the caller reads: a long past must not go through the buffer.
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
                # What had arrived before the close is delivered first.
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
        """Events that the follower did not bring; none while Redis is away."""
        count = PAGE if self._limit is None else min(PAGE, self._limit)
        try:
            found = await self.past(buffer.turn_id, buffer.seen, count)
        except StoreUnavailable:
            return []
        buffer.take(found)
        # Through the buffer, which drops what the follower brings a second time.
        return buffer.taken()
