"""Following the events of thousands of turns on the event loop with a few connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, cast

import redis.asyncio

from agentapi import Settings
from agentapi.errors import StoreUnavailable
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import turn_keys
from agentapi.stores.redis.codec import event_from_entry
from agentapi.supervision import Supervisor
from agentapi.turns import Event
from orchestrator.events.async_reader import LONGEST_BLOCK, PAGE, EventReader
from orchestrator.events.subscriptions import Closed, Subscription

READERS: Final = 2
"""Connections that wait for events, whatever the number of turns."""

_MARGIN: Final = 5.0
"""Seconds for which a reader may be late before it is taken for one that hangs."""


class AsyncFollower:
    """Reads for all subscriptions together and hands each event to those who wait for it."""

    def __init__(
        self,
        settings: Settings,
        client: redis.asyncio.Redis,
        supervisor: Supervisor,
        *,
        buffer: int,
    ) -> None:
        """Make one; `start` begins to read.

        Args:
            settings: The server.
            client: For short commands.
            supervisor: Keeps the reading going.
            buffer: Events that may wait for one reader.
        """
        self._settings = settings
        self._buffer = buffer
        self._client = client
        self._readers = [
            EventReader(settings, client, supervisor, number, buffer=buffer)
            for number in range(READERS)
        ]
        self.stopping = False

    @property
    def fresh(self) -> bool:
        """Whether all readers run, and have read within the time that a read may take."""
        most = LONGEST_BLOCK + self._settings.redis_timeout + _MARGIN
        reading = [reader.reading.status() for reader in self._readers]
        waking = [reader.waking.status() for reader in self._readers]
        return all(s.running and s.idle < most for s in reading) and all(s.running for s in waking)

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
            StoreFault: What is there is no stream of events.
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
        buffer of bounded size. When none came for a while, they are looked for: nobody waits for
        ever for a reader that hangs.

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
        subscription = Subscription(turn_id, after, self._buffer)
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
                events = events or await self._look(subscription)
                yield events
                if events and events[-1].type.ends:
                    return
        finally:
            reader.remove(subscription)

    async def _look(self, subscription: Subscription) -> list[Event]:
        """What is there, though no reader brought it. A Redis that is away is waited for."""
        count = min(PAGE, self._buffer)
        try:
            found = await self.past(subscription.turn_id, subscription.after, count)
        except StoreUnavailable:
            return []
        subscription.deliver(found)
        return subscription.taken()
