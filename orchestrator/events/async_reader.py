"""One connection that waits for the events of many turns."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any, Final, cast

import redis.asyncio

from agentapi import Settings
from agentapi.errors import AgentAPIError, StoreFault, StoreUnavailable
from agentapi.logs import line
from agentapi.redis.aio import connect
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import turn_keys
from agentapi.stores.redis.codec import event_from_entry
from agentapi.supervision import Service, Supervisor
from orchestrator.events.subscriptions import Closed, Subscription

log = logging.getLogger("agentapi.gateway.follower")

PAGE: Final = 500
"""Events read at once."""

LONGEST_BLOCK: Final = 5.0
"""Seconds of one wait for events."""

_GATHER: Final = 0.01
"""Seconds between two reads: one read then brings the news of many turns."""

_AWAY: Final = 0.5
"""Seconds between two tries while Redis is out of reach."""


class EventReader:
    """Waits for the events of its share of the turns in one XREAD.

    It also follows a wake-up stream of its own, which ends the wait when the set of turns
    changes. The cursor is ours, so a wake-up sent before the read began is not lost; and so a
    read that failed goes on where it was.
    """

    def __init__(
        self,
        settings: Settings,
        client: redis.asyncio.Redis,
        supervisor: Supervisor,
        number: int,
    ) -> None:
        """Make one; `start` begins to read.

        Args:
            settings: The server, and how many events may wait for one reader.
            client: For short commands.
            supervisor: Keeps it running.
            number: Tells it from other readers.
        """
        self._settings = settings
        self._client = client
        self._blocking = connect(settings, connections=1, block=LONGEST_BLOCK)
        # One read alone must never fill a reader's buffer.
        self._count = min(PAGE, settings.gateway_stream_buffer)
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._streams: dict[str, str] = {}
        self._wake_key = f"agentapi:wake:{uuid.uuid4().hex}"
        self._wake_cursor = "0"
        self._changed = asyncio.Event()
        self._away = False
        self.reading = supervisor.task(f"gateway-read-{number}", self._read)
        self.waking = supervisor.task(f"gateway-wake-{number}", self._wake)

    def start(self) -> None:
        """Begin to read."""
        self.reading.start()
        self.waking.start()

    def add(self, subscription: Subscription) -> None:
        """Follow a turn for somebody."""
        turn_id = subscription.turn_id
        self._subscriptions.setdefault(turn_id, []).append(subscription)
        self._streams[turn_id] = turn_keys(turn_id).events
        self._changed.set()

    def remove(self, subscription: Subscription) -> None:
        """Follow it no more."""
        waiting = self._subscriptions.get(subscription.turn_id, [])
        if subscription in waiting:
            waiting.remove(subscription)
        if not waiting:
            self._subscriptions.pop(subscription.turn_id, None)
            self._streams.pop(subscription.turn_id, None)

    def close_subscriptions(self) -> None:
        """End all of them: the gateway stops."""
        for turn_id in list(self._subscriptions):
            self._close(turn_id, Closed.STOPPING)

    async def aclose(self) -> None:
        """End the reading and close its connection."""
        stopped = False
        while not stopped:
            # Redis's client sends through asyncio.wait_for, which loses a cancellation that
            # comes as it ends (Python 3.11): the read would then wait for its whole block.
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.gather(self.reading.stop(), self.waking.stop())
                stopped = True
            except TimeoutError:
                continue
        await self._blocking.aclose()

    async def _wake(self, service: Service) -> None:
        """End the wait when there are new subscriptions; many at once cost one wake-up."""
        while not service.stopping:
            await self._changed.wait()
            self._changed.clear()
            try:
                with translate_errors(self._settings.redis_url):
                    pipeline = self._client.pipeline(transaction=False)
                    pipeline.xadd(self._wake_key, {"wake": "1"}, maxlen=1)
                    pipeline.expire(self._wake_key, 3600)
                    await pipeline.execute()
                service.progress()
            except BaseException as error:
                # The change is still to be told.
                self._changed.set()
                if not isinstance(error, StoreUnavailable):
                    raise
                await asyncio.sleep(_AWAY)

    async def _read(self, service: Service) -> None:
        while not service.stopping:
            for name, cursor, entries in await self._news():
                self._deliver(name, cursor, entries)
            if not self._away:
                service.progress()
            await asyncio.sleep(_GATHER)

    async def _news(self) -> list[tuple[str, str, list[Any]]]:
        """What has come: streams, from where they were read, and entries; waits for something."""
        cursors = self._cursors()
        try:
            with translate_errors(self._settings.redis_url):
                reply = await self._blocking.xread(
                    cursors, count=self._count, block=round(LONGEST_BLOCK * 1000)
                )
        except StoreUnavailable as error:
            if not self._away:
                log.warning(line("follower.away", error=error))
            self._away = True
            await asyncio.sleep(_AWAY)
            return []
        except StoreFault:
            if not await self._close_faulty():
                raise
            return []
        self._away = False
        found = ((name.decode(), entries) for name, entries in cast("list[Any]", reply or []))
        return [(name, cursors[name], entries) for name, entries in found]

    async def _close_faulty(self) -> bool:
        """Find the turns on which the read fails; returns whether there were any."""
        found = False
        for turn_id, stream in list(self._streams.items()):
            try:
                with translate_errors(self._settings.redis_url):
                    await self._client.xrange(stream, count=1)
            except StoreFault as fault:
                log.error(line("follower.unreadable", turn_id=turn_id, error=type(fault).__name__))
                self._close(turn_id, Closed.UNREADABLE)
                found = True
            except AgentAPIError:
                return found
        return found

    def _cursors(self) -> dict[Any, Any]:
        cursors: dict[Any, Any] = {self._wake_key: self._wake_cursor}
        for turn_id, waiting in self._subscriptions.items():
            # Of those that are closed nothing more is read, until their readers have noticed.
            if following := [found.after for found in waiting if found.closed is None]:
                cursors[self._streams[turn_id]] = f"{min(following) + 1}-0"
        return cursors

    def _deliver(self, name: str, cursor: str, entries: list[Any]) -> None:
        if name == self._wake_key:
            self._wake_cursor = entries[-1][0].decode()
            return
        turn_id = name.removesuffix(":events").rpartition(":")[2]
        try:
            events = [event_from_entry(key, fields) for key, fields in entries]
            after = int(cursor.partition("-")[0]) - 1
            for subscription in self._subscriptions.get(turn_id, ()):
                # One that came during the read may have to get what the read began behind.
                if subscription.after >= after:
                    subscription.deliver(events)
        except Exception as error:
            # Whatever is wrong with one turn's events is no other's business.
            log.error(line("follower.unreadable", turn_id=turn_id, error=type(error).__name__))
            self._close(turn_id, Closed.UNREADABLE)

    def _close(self, turn_id: str, why: Closed) -> None:
        for subscription in self._subscriptions.get(turn_id, ()):
            subscription.close(why)
