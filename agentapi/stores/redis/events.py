"""Reads the event streams of many turns over one connection."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import redis

from agentapi.redis.cluster import ClusterClient
from agentapi.redis.connection import connect
from agentapi.redis.keys import turn_keys
from agentapi.redis.waiting import Reply, StreamWaiter
from agentapi.settings import Settings
from agentapi.stores.redis.codec import event_from_entry
from agentapi.turns import Event

LONGEST_BLOCK = 5.0
"""Maximum seconds of one blocking read."""

_ANSWER_TIME: Final = 1.0
"""Seconds within which a shard must accept a read: one thread asks all shards."""


@lru_cache(maxsize=8192)
def _stream_of(turn_id: str) -> str:
    """The key of a turn's events. Every read names it again, for thousands of turns."""
    return turn_keys(turn_id).events


def _xread(
    client: redis.Redis, streams: dict[str, str], count: int | None, block: int | None = None
) -> Reply:
    """Send XREAD like `redis.Redis.xread`, but without a tuple for each stream.

    With a thousand streams those tuples would start Python's garbage collector in each read.
    """
    options: list[str | int] = []
    if count is not None:
        options += ["COUNT", count]
    if block is not None:
        options += ["BLOCK", block]
    send: Any = client.execute_command
    return cast("Reply", send("XREAD", *options, "STREAMS", *streams, *streams.values()) or [])


class EventReader:
    """Waits for the events of any number of turns in one XREAD.

    A waiting read also follows the reader's own wake-up stream, to which another thread writes to
    end the read and change the set of turns. The stream keeps its last entry, and this reader its
    cursor, so a wake-up that was sent before the read began is not lost.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client
        self._blocking: redis.Redis | None = None
        self._wake_key = f"agentapi:wake:{uuid.uuid4().hex}"
        self._wake_cursor = "0"
        self._waiter = self._wait_for_shards() if isinstance(client, ClusterClient) else None

    def read(
        self, cursors: Mapping[str, int], timeout: float, count: int | None
    ) -> dict[str, list[Event]]:
        """At most `count` events of each turn after the cursors; waits for the first of them."""
        streams = {_stream_of(turn_id): f"{number + 1}-0" for turn_id, number in cursors.items()}
        if self._waiter is not None:
            reply = self._read_shards(self._waiter, streams, timeout, count)
        elif timeout > 0:
            reply = self._block(streams, timeout, count)
        else:
            reply = _xread(self._client, streams, count) if streams else []
        found: dict[str, list[Event]] = {}
        for name, entries in reply:
            if name.decode() == self._wake_key:
                self._wake_cursor = entries[-1][0].decode()
                continue
            turn_id = name.decode().removesuffix(":events").rpartition(":")[2]
            found[turn_id] = [event_from_entry(key, fields) for key, fields in entries]
        return found

    def _block(self, streams: dict[str, str], timeout: float, count: int | None) -> Reply:
        if self._blocking is None:
            self._blocking = connect(self._settings, block=LONGEST_BLOCK)
        streams = {self._wake_key: self._wake_cursor, **streams}
        block = max(1, round(min(timeout, LONGEST_BLOCK) * 1000))
        return _xread(self._blocking, streams, count, block)

    def _wait_for_shards(self) -> StreamWaiter:
        quick = {"redis_timeout": min(self._settings.redis_timeout, _ANSWER_TIME)}
        client = connect(self._settings.model_copy(update=quick))
        return StreamWaiter(cast("ClusterClient", client), LONGEST_BLOCK)

    def _read_shards(
        self, waiter: StreamWaiter, streams: dict[str, str], timeout: float, count: int | None
    ) -> Reply:
        if timeout > 0:
            return waiter.read(streams, count, timeout)
        pipeline = self._client.pipeline(transaction=False)
        for name, after in streams.items():
            pipeline.xread({name: after}, count=count)
        replies = pipeline.execute() if streams else []
        return [entries for reply in replies for entries in reply]

    def interrupt(self) -> None:
        """End a waiting `read`, or the next one."""
        if self._waiter is not None:
            self._waiter.interrupt()
            return
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xadd(self._wake_key, {"wake": "1"}, maxlen=1)
        pipeline.expire(self._wake_key, 3600)
        pipeline.execute()

    def close(self) -> None:
        """Close the waiting connection."""
        if self._waiter is not None:
            self._waiter.close()
        if self._blocking is not None:
            self._blocking.close()
            self._blocking.connection_pool.disconnect()
