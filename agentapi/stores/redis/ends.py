"""Reads the streams of ended turns, of all partitions together."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from agentapi.errors import StoreUnavailable
from agentapi.ids import PARTITIONS
from agentapi.redis.cluster import ClusterClient
from agentapi.redis.connection import connect, translated
from agentapi.redis.keys import ends_key
from agentapi.settings import Settings
from agentapi.stores.lists import FROM_START, Ends, TurnEnd
from agentapi.stores.merging import check_limit
from agentapi.stores.missing import Missing
from agentapi.stores.redis.events import LONGEST_BLOCK
from agentapi.stores.redis.positions import EntryId, Position
from agentapi.turns import TurnStatus

_STREAMS: Final = [ends_key(partition) for partition in range(PARTITIONS)]
_PARTITION_OF: Final = {name.encode(): partition for partition, name in enumerate(_STREAMS)}

_AT_LEAST: Final = 8
"""Maximum entries of a partition in one read."""

_LOOK_EVERY: Final = 0.25
"""Seconds between two checks of a cluster's streams."""

_FIRST: Final = (0, 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    partition: int
    entry_id: EntryId
    fields: Mapping[bytes, bytes]


class EndsReader:
    """Reads ends after a position. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client
        self._blocking: redis.Redis | None = None
        self._lock = threading.Lock()

    def read(self, after: str | float | None, limit: int, timeout: float) -> Ends:
        """At most `limit` ends; waits for the first of them."""
        check_limit(limit)
        position = self._position(after)
        entries, away = self._entries(position, limit, timeout)
        # Each stream has its own order; between streams, the time decides.
        entries.sort(key=lambda entry: entry.entry_id)
        ends = []
        for entry in entries[:limit]:
            position.move(entry.partition, entry.entry_id)
            end = _end(entry, str(position))
            if end is not None:
                ends.append(end)
        missing = Missing(partitions=away) if away else None
        return Ends(ends=ends, position=str(position), missing=missing)

    def _position(self, after: str | float | None) -> Position:
        if after is None:
            return self._now()
        if isinstance(after, str):
            return Position.at(0) if after == FROM_START else Position.read(after)
        return Position.at(max(0, math.ceil(after * 1000)))

    def _now(self) -> Position:
        """The position after the newest end of each partition. Not the current time: a server's
        clock may be behind the clock that wrote the newest end."""
        pipeline = self._client.pipeline(transaction=False)
        for stream in _STREAMS:
            pipeline.xrevrange(stream, count=1)
        newest = pipeline.execute()
        return Position([_id(found[0][0]) if found else _FIRST for found in newest])

    def _entries(self, position: Position, limit: int, timeout: float) -> tuple[list[_Entry], int]:
        """Entries, and the number of partitions that do not answer."""
        count = max(_AT_LEAST, math.ceil(2 * limit / PARTITIONS))
        options: list[str | int] = ["COUNT", count]
        client = self._client
        if timeout > 0 and not isinstance(client, ClusterClient):
            client = self._waiting()
            options += ["BLOCK", max(1, round(min(timeout, LONGEST_BLOCK) * 1000))]
        if isinstance(client, ClusterClient):
            return self._entries_each(client, position, count, timeout)
        send: Any = client.execute_command
        reply = send("XREAD", *options, "STREAMS", *_STREAMS, *position.streams()) or []
        entries = [
            _Entry(_PARTITION_OF[stream], _id(entry_id), fields)
            for stream, read in reply
            for entry_id, fields in read
        ]
        return entries, 0

    def _entries_each(
        self, client: ClusterClient, position: Position, count: int, timeout: float
    ) -> tuple[list[_Entry], int]:
        """On a cluster each stream has its own read, and none blocks. Blocking reads would take a
        connection per stream, for entries that may as well arrive a moment later.

        The ends of an unavailable shard are read when it is back, because their position stays.
        """
        until = time.monotonic() + timeout
        while True:
            pipeline = client.pipeline(transaction=False)
            for stream, after in zip(_STREAMS, position.streams(), strict=True):
                pipeline.xread({stream: after}, count=count)
            found = pipeline.execute_each(self._settings.redis_timeout / 2)
            away = [answer for answer in found if isinstance(answer, redis.RedisError)]
            for answer in away:
                if not isinstance(translated(answer, self._settings.redis_url), StoreUnavailable):
                    raise answer
            entries = [
                _Entry(partition, _id(entry_id), fields)
                for partition, reply in enumerate(found)
                if not isinstance(reply, redis.RedisError)
                for _, read in reply
                for entry_id, fields in read
            ]
            left = until - time.monotonic()
            if entries or left <= 0:
                return entries, len(away)
            time.sleep(min(_LOOK_EVERY, left))

    def _waiting(self) -> redis.Redis:
        with self._lock:
            if self._blocking is None:
                self._blocking = connect(self._settings, block=LONGEST_BLOCK)
            return self._blocking

    def close(self) -> None:
        """Close the waiting connections."""
        with self._lock:
            if self._blocking is not None:
                self._blocking.close()
                self._blocking.connection_pool.disconnect()
                self._blocking = None


def _id(entry_id: bytes) -> EntryId:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _end(entry: _Entry, position: str) -> TurnEnd | None:
    """Read an entry; None if it was not written by any release."""
    fields = {name.decode(errors="replace"): value for name, value in entry.fields.items()}
    try:
        turn_id = fields["turn"].decode()
        return TurnEnd(
            id=f"{turn_id}:{fields['number'].decode()}",
            position=position,
            turn_id=turn_id,
            conversation_id=fields["conversation"].decode(),
            agent=fields["agent"].decode(),
            status=TurnStatus(fields["status"].decode()),
            ended_at=entry.entry_id[0] / 1000,
            user_id=fields["user"].decode() or None,
            tenant_id=fields["tenant"].decode() or None,
            error_code=fields["code"].decode() or None,
        )
    except (KeyError, ValueError):
        return None
