"""Waits for new entries in many streams of a cluster.

Redis allows a blocking read only for streams in one slot. So each slot has its own connection with
one pending read, and one thread waits for the first answer.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import redis
from redis.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import AskError, ReadOnlyError, ResponseError, TryAgainError

from agentapi.redis.cluster import ClusterClient, client_of

Reply: TypeAlias = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]

_TRY_AGAIN: Final = 0.5
"""Seconds between two attempts to read from a shard that is unavailable."""

_SLACK: Final = 3.0
"""Seconds past its timeout after which a read counts as lost."""

_PASSING: Final = (AskError, TryAgainError, ReadOnlyError)
"""Errors of a shard whose slots are migrating, or that is losing its primary."""


@dataclass(slots=True)
class _Read:
    """A pending read: its streams and their positions, its connection, and the time by which Redis
    must have answered."""

    streams: Mapping[str, str]
    node: ClusterNode
    connection: Any
    late: float


class StreamWaiter:
    """Reads of any number of slots. Only one thread may call `read`; any thread may call
    `interrupt`."""

    def __init__(self, client: ClusterClient, block: float) -> None:
        """Connects when first used.

        Args:
            client: A client with non-blocking connections: an answer is read only when it has
                arrived.
            block: Seconds after which Redis ends a read without new entries.
        """
        self._client = client
        self._block = block
        self._reads: dict[int, _Read] = {}
        self._away: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakened = socket.socketpair()
        for end in (self._waker, self._wakened):
            end.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._closed = False

    def interrupt(self) -> None:
        """End a waiting `read`, or the next one."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def read(self, streams: Mapping[str, str], count: int | None, timeout: float) -> Reply:
        """Entries after the ids of some streams; waits for the first of them.

        Raises:
            redis.RedisError: A stream cannot be read, or no shard can be reached.
        """
        wanted: dict[int, dict[str, str]] = defaultdict(dict)
        for name, after in streams.items():
            wanted[key_slot(name.encode())][name] = after
        for slot in [
            slot for slot, read in self._reads.items() if wanted.get(slot) != read.streams
        ]:
            self._drop(slot)
        deadline = time.monotonic() + timeout
        found: Reply = []
        while not found:
            self._ask(wanted, count)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            events = self._selector.select(min(left, _TRY_AGAIN) if self._away else left)
            for key, _ in events:
                if key.fileobj is self._wakened:
                    with contextlib.suppress(BlockingIOError):
                        while self._wakened.recv(4096):
                            pass
                    return found
                found += self._take(key.data)
            self._keep_time()
        return found

    def _ask(self, wanted: Mapping[int, Mapping[str, str]], count: int | None) -> None:
        """Start the reads that are not pending."""
        failed: redis.RedisError | None = None
        for slot, streams in wanted.items():
            if slot in self._reads or self._away.get(slot, 0) > time.monotonic():
                continue
            try:
                self._reads[slot] = self._begin(slot, streams, count)
                self._away.pop(slot, None)
            except redis.RedisError as error:
                failed = error
                self._rest(slot, _TRY_AGAIN)
        if failed is not None and not self._reads:
            raise failed

    def _begin(self, slot: int, streams: Mapping[str, str], count: int | None) -> _Read:
        node = self._client.node_of_slot(slot)
        with self._client.watched(node):
            connection: Any = client_of(node).connection_pool.get_connection()
            options = [] if count is None else ["COUNT", count]
            options += ["BLOCK", round(self._block * 1000)]
            try:
                connection.send_command("XREAD", *options, "STREAMS", *streams, *streams.values())
            except BaseException:
                connection.disconnect()
                client_of(node).connection_pool.release(connection)
                raise
        self._selector.register(connection._sock, selectors.EVENT_READ, slot)
        late = time.monotonic() + self._block + _SLACK
        return _Read(dict(streams), node, connection, late)

    def _take(self, slot: int) -> Reply:
        """The answer that has arrived for a slot."""
        read = self._reads.pop(slot)
        self._selector.unregister(read.connection._sock)
        client = client_of(read.node)
        try:
            parse: Any = client.parse_response
            return parse(read.connection, "XREAD") or []
        except (redis.ConnectionError, redis.TimeoutError):
            read.connection.disconnect()
            self._rest(slot, _TRY_AGAIN)
        except _PASSING:
            self._rest(slot, 0.02)
        except ResponseError as error:
            # A read that was waiting when the shard lost its primary.
            if not str(error).startswith("UNBLOCKED"):
                raise
            self._rest(slot, 0.02)
        finally:
            client.connection_pool.release(read.connection)
        return []

    def _rest(self, slot: int, seconds: float) -> None:
        self._away[slot] = time.monotonic() + seconds
        with contextlib.suppress(redis.ConnectionError):
            self._client.refresh()

    def _keep_time(self) -> None:
        """Release slots that have rested, and abandon reads that a silent shard does not answer."""
        now = time.monotonic()
        for slot in [slot for slot, read in self._reads.items() if read.late < now]:
            self._drop(slot)
            self._rest(slot, _TRY_AGAIN)
        self._away = {slot: until for slot, until in self._away.items() if until > now}

    def _drop(self, slot: int) -> None:
        """End a read whose streams differ from those that are needed now."""
        read = self._reads.pop(slot)
        self._selector.unregister(read.connection._sock)
        # Redis would answer it later, in place of the connection's next command.
        read.connection.disconnect()
        client_of(read.node).connection_pool.release(read.connection)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for slot in list(self._reads):
            self._drop(slot)
        self._selector.close()
        self._waker.close()
        self._wakened.close()
        self._client.close()
