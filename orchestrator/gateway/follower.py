"""Following the events of thousands of turns on the event loop with a few connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from enum import StrEnum
from typing import Any, Final, cast

import redis.asyncio

from agentapi import Settings
from agentapi.errors import StoreUnavailable
from agentapi.stores.codec import event_from_entry
from agentapi.stores.connection import translate_errors
from agentapi.stores.keys import turn_keys
from agentapi.turns import Event
from orchestrator.gateway.connection import connect

log = logging.getLogger("agentapi.gateway.follower")

READERS: Final = 2
"""Connections that wait for events, whatever the number of turns."""

PAGE: Final = 500
"""Events read at once."""

_LONGEST_BLOCK: Final = 30.0
_GATHER: Final = 0.01
"""Seconds between two reads: one read then brings the news of many turns."""


class Closed(StrEnum):
    """Why a subscription gets no more events before its turn's end."""

    SLOW = "slow"
    """Its reader let too many events wait."""
    STOPPING = "stopping"
    """The gateway shuts down."""
    UNREADABLE = "unreadable"
    """An event is of a newer release than this gateway."""


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
        arrived = list(self._events)
        self._events.clear()
        return arrived


class AsyncFollower:
    """Reads for all subscriptions together and hands each event to those who wait for it."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis) -> None:
        """Make one; `start` begins to read.

        Args:
            settings: The server, and how many events may wait for one reader.
            client: For short commands.
        """
        self._settings = settings
        self._client = client
        self._readers = [_Reader(settings, client) for _ in range(READERS)]
        self.stopping = False

    def start(self) -> None:
        """Begin to read."""
        for reader in self._readers:
            reader.start()

    def stop(self) -> None:
        """End all subscriptions; those that come later are ended at once."""
        self.stopping = True
        for reader in self._readers:
            reader.close_subscriptions()

    async def aclose(self) -> None:
        """End the reading and close its connections."""
        self.stop()
        for reader in self._readers:
            await reader.aclose()

    async def past(self, turn_id: str, after: int, count: int = PAGE) -> list[Event]:
        """The next events after a number that are there already.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._settings.redis_url):
            entries = await self._client.xrange(
                turn_keys(turn_id).events, min=f"{after + 2}-0", count=count
            )
        return [event_from_entry(key, fields) for key, fields in cast("list[Any]", entries)]

    async def follow(
        self, turn_id: str, after: int, *, patience: float, fresh: bool = False
    ) -> AsyncGenerator[list[Event] | Closed, None]:
        """A turn's events after a number, as they come, until the one that ends it.

        Past events are read as fast as the caller takes them; events to come wait for it in a
        buffer of bounded size.

        Args:
            turn_id: The turn.
            after: Number of the last event already seen; -1 for all.
            patience: Seconds after which an empty list says that nothing happened.
            fresh: That there cannot be a long past, which saves looking for it.

        Yields:
            Events; or, as the last thing, why no more come although the turn goes on.

        Raises:
            StoreUnavailable: Redis is out of reach at the beginning.
        """
        while not fresh and (page := await self.past(turn_id, after)):
            yield page
            after = page[-1].number
            if page[-1].type.ends:
                return
            fresh = len(page) < PAGE
        reader = self._readers[hash(turn_id) % READERS]
        subscription = Subscription(turn_id, after, self._settings.gateway_stream_buffer)
        if self.stopping:
            subscription.close(Closed.STOPPING)
        reader.add(subscription)
        try:
            while True:
                events = await subscription.next(patience)
                # What had arrived before the close is delivered first.
                if not events and subscription.closed is not None:
                    yield subscription.closed
                    return
                yield events
                if events and events[-1].type.ends:
                    return
        finally:
            reader.remove(subscription)


class _Reader:
    """One connection that waits for the events of its share of the turns in one XREAD.

    It also follows a wake-up stream of its own, which ends the wait when the set of turns
    changes. The cursor is ours, so a wake-up sent before the read began is not lost.
    """

    def __init__(self, settings: Settings, client: redis.asyncio.Redis) -> None:
        self._settings = settings
        self._client = client
        self._blocking = connect(settings, connections=1, block=_LONGEST_BLOCK)
        # One read alone must never fill a reader's buffer.
        self._count = min(PAGE, settings.gateway_stream_buffer)
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._streams: dict[str, str] = {}
        self._wake_key = f"agentapi:wake:{uuid.uuid4().hex}"
        self._wake_cursor = "0"
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._wake())]

    def add(self, subscription: Subscription) -> None:
        self._subscriptions.setdefault(subscription.turn_id, []).append(subscription)
        self._streams[subscription.turn_id] = turn_keys(subscription.turn_id).events
        self._changed.set()

    def remove(self, subscription: Subscription) -> None:
        waiting = self._subscriptions[subscription.turn_id]
        waiting.remove(subscription)
        if not waiting:
            del self._subscriptions[subscription.turn_id]
            del self._streams[subscription.turn_id]

    def close_subscriptions(self) -> None:
        for waiting in self._subscriptions.values():
            for subscription in waiting:
                subscription.close(Closed.STOPPING)

    async def aclose(self) -> None:
        pending = set(self._tasks)
        while pending:
            # Redis's client sends through asyncio.wait_for, which loses a cancellation that
            # comes as it ends (Python 3.11): the read would then wait for its whole block.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.1)
        await self._blocking.aclose()

    async def _wake(self) -> None:
        """End the wait when there are new subscriptions; many at once cost one wake-up."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                with translate_errors(self._settings.redis_url):
                    pipeline = self._client.pipeline(transaction=False)
                    pipeline.xadd(self._wake_key, {"wake": "1"}, maxlen=1)
                    pipeline.expire(self._wake_key, 3600)
                    await pipeline.execute()
            except StoreUnavailable:
                self._changed.set()
                await asyncio.sleep(0.5)

    async def _read(self) -> None:
        away = False
        while True:
            try:
                with translate_errors(self._settings.redis_url):
                    reply = await self._blocking.xread(
                        self._cursors(), count=self._count, block=round(_LONGEST_BLOCK * 1000)
                    )
                away = False
            except StoreUnavailable as error:
                if not away:
                    log.warning("follower.away error=%s", error)
                away = True
                await asyncio.sleep(0.5)
                continue
            for name, entries in cast("list[Any]", reply or []):
                self._deliver(name.decode(), entries)
            await asyncio.sleep(_GATHER)

    def _cursors(self) -> dict[Any, Any]:
        cursors: dict[Any, Any] = {self._wake_key: self._wake_cursor}
        for turn_id, waiting in self._subscriptions.items():
            after = min(subscription.after for subscription in waiting)
            cursors[self._streams[turn_id]] = f"{after + 1}-0"
        return cursors

    def _deliver(self, name: str, entries: list[Any]) -> None:
        if name == self._wake_key:
            self._wake_cursor = entries[-1][0].decode()
            return
        turn_id = name.removesuffix(":events").rpartition(":")[2]
        waiting = self._subscriptions.get(turn_id, ())
        try:
            events = [event_from_entry(key, fields) for key, fields in entries]
        except (ValueError, KeyError) as error:
            log.error("follower.unreadable turn_id=%s error=%s", turn_id, type(error).__name__)
            for subscription in waiting:
                subscription.close(Closed.UNREADABLE)
            return
        for subscription in waiting:
            subscription.deliver(events)
