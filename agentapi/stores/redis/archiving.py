"""Moves conversations between Redis and the archive. A crash at any point loses and duplicates
nothing.

Out: `pack` records that a copy is about to be made and returns the conversation's state; the copy
is stored; `depart` removes the content if the state has not changed. Back: the copy is staged in
Redis; `arrive` makes it the conversation's content and records that the copy is no longer valid.
Recorded copies that are not valid are deleted from the archive (`leftovers`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, TypeVar, cast

import redis

from agentapi.archive.protocol import Archive, ArchivedConversation, ArchivedRow
from agentapi.errors import ArchiveLost, ArchiveUnavailable
from agentapi.ids import PARTITIONS, partition_of
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import ARCHIVE_MOVES
from agentapi.redis.archived import Absent, Away
from agentapi.redis.cluster import nodes_of
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import ConversationKeys, conversation_keys, copies_key
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings
from agentapi.stores.archiving import LEFTOVER_AGE, MARKER, PATIENCE, TRANSIENT
from agentapi.stores.data import STAGED_TTL
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.turn_archiving import RedisTurnArchiving
from agentapi.stores.redis.values import milliseconds

log = logging.getLogger("agentapi.archive")

T = TypeVar("T")

_SCAN: Final = 1000
"""Maximum keys that one step of the search examines."""

_PIECE: Final = 200
"""Maximum messages that are read or staged together."""

_LEFTOVERS: Final = 100
"""Maximum copies of one partition that are deleted together."""

_TAGGED: Final = len("agentapi:{000}:c:")

_REST: Final = 2.0
_LONGEST_REST: Final = 30.0
"""Seconds for which an archive that did not answer is not asked again. They double with each
failure."""

_AT_ONCE: Final = 2
"""Maximum callers that wait for the archive at the same time: other turns need the threads."""

_WAIT: Final = 1.0
"""Seconds that further callers wait for a place."""


class RedisArchiving(RedisPart):
    """Moves conversations out of Redis and back. Safe to share between threads."""

    def __init__(
        self, settings: Settings, client: redis.Redis, scripts: Scripts, archive: Archive
    ) -> None:
        super().__init__(settings, client, scripts)
        self.archive = archive
        self._idle = milliseconds(settings.archive_after)
        self._preparing = threading.Lock()
        self._prepared = False
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._rest = 0.0
        self._rests_until = 0.0
        self._peeking = threading.Lock()
        self._readers = 0
        self._peeked: ArchivedConversation | None = None
        self.turns = RedisTurnArchiving(settings, client, scripts, self)

    def ready(self) -> Archive:
        """The archive, with its tables in place.

        Raises:
            ArchiveUnavailable: It cannot be reached.
        """
        with self._preparing:
            if not self._prepared:
                self.archive.prepare()
                self._prepared = True
        return self.archive

    def cold(self) -> Iterator[Sequence[str]]:
        """Go through all conversations once. Each step yields those that have been idle for
        `archive_after`, perhaps none."""
        for client in nodes_of(self._client):
            yield from self._cold_of(client)

    def _cold_of(self, client: redis.Redis) -> Iterator[Sequence[str]]:
        cursor = 0
        while True:
            with translate_errors(self._settings.redis_url):
                seconds, rest = client.time()
                before = seconds * 1000 + rest // 1000 - self._idle
                cursor, scanned = client.scan(cursor, "agentapi:{*}:c:*:meta", _SCAN)
                keys = cast("list[bytes]", scanned)
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hmget(key, ["created", "updated", "returned", "archived"])
                found = pipeline.execute(raise_on_error=False) if keys else []
            yield [
                key.decode()[_TAGGED:].removesuffix(":meta")
                for key, fields in zip(keys, found, strict=True)
                if isinstance(fields, list) and _is_cold(fields, before)
            ]
            if cursor == 0:
                return

    def move(self, conversation_id: str) -> bool:
        """Move a conversation to the archive unless it is in use; returns whether it moved.

        Raises:
            ArchiveUnavailable: The archive cannot be reached; the conversation stays.
            StoreUnavailable: Redis cannot be reached; the conversation is in one of the two.
        """
        archive = self.ready()
        keys, version = conversation_keys(conversation_id), uuid.uuid4().hex
        named = [keys.meta, keys.messages, keys.inbox, keys.lease, _copies(conversation_id)]
        began = time.monotonic()
        reply = self._call(
            "pack", named, [conversation_id, version, self._idle, milliseconds(PATIENCE)]
        )
        if reply[0] == b"warm":
            return False
        _, state, count, names, flat = reply
        fields = _texts(flat)
        messages = list(self._messages(keys, count))
        blobs = self._blobs(keys, names)
        now, expires = self._times(keys)
        row = _row(conversation_id, version, fields, now=now, expires=expires, messages=count)
        if len(messages) != count or time.monotonic() - began > PATIENCE / 2:
            return self._moved("changed")
        archive.put(ArchivedConversation(row=row, fields=fields, messages=messages, blobs=blobs))
        if time.monotonic() - began > PATIENCE / 2:
            # Another process may delete the copy as abandoned, and a failover may hide that from
            # depart.
            return self._moved("changed")
        unneeded = sorted(set(fields) - MARKER - TRANSIENT)
        reply = self._call("depart", named, [conversation_id, version, state, *unneeded])
        return self._moved("moved" if reply[0] == b"gone" else "changed")

    def _times(self, keys: ConversationKeys) -> tuple[int, int | None]:
        """The current time, and the time at which the conversation expires, in milliseconds."""
        with translate_errors(self._settings.redis_url):
            left = self._client.pttl(keys.meta)
            now = self._client.time()[0] * 1000
        return now, now + left if left >= 0 else None

    def _moved(self, outcome: str) -> bool:
        recorder().count(ARCHIVE_MOVES, "out", outcome)
        return outcome == "moved"

    def _messages(self, keys: ConversationKeys, count: int) -> Iterator[bytes]:
        for first in range(0, count, _PIECE):
            with translate_errors(self._settings.redis_url):
                found = self._client.lrange(keys.messages, first, min(first + _PIECE, count) - 1)
            yield from cast("list[bytes]", found)

    def _blobs(self, keys: ConversationKeys, names: Sequence[bytes]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in names:
            with translate_errors(self._settings.redis_url):
                data = self._client.hget(keys.blobs, name.decode())
            if isinstance(data, bytes):
                found[name.decode()] = data
        return found

    def bring_back(self, absent: Absent) -> None:
        """Bring back a conversation for a caller that needs its history, or a turn's record.

        Raises:
            ArchiveLost: It is not in the archive.
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """
        if isinstance(absent, Away):
            self._bring_back(absent)
        else:
            self.turns.bring_back(absent)

    def _bring_back(self, away: Away) -> None:
        copy = self._copy(away)
        if copy is None:
            return
        keys = conversation_keys(away.conversation_id)
        staged = [f"{key}:import:{uuid.uuid4().hex}" for key in (keys.messages, keys.blobs)]
        for first in range(0, len(copy.messages), _PIECE):
            self._stage(staged, first, copy.messages[first : first + _PIECE], {})
        for name, data in copy.blobs.items():
            self._stage(staged, len(copy.messages), (), {name: data})
        rest = {k: v for k, v in copy.fields.items() if k not in MARKER | TRANSIENT}
        reply = self._call(
            "arrive",
            [keys.meta, keys.messages, _copies(away.conversation_id), *staged],
            [
                *(away.conversation_id, away.version, len(copy.messages)),
                *chain.from_iterable(rest.items()),
            ],
        )
        outcome = {b"back": "moved", b"elsewhere": "changed"}.get(reply[0], "failed")
        recorder().count(ARCHIVE_MOVES, "in", outcome)
        log.info(line("archive.back", conversation_id=away.conversation_id, outcome=outcome))

    def _copy(self, away: Away) -> ArchivedConversation | None:
        """The copy; None if the conversation is already back, or no longer exists."""
        copy = self.ask(lambda archive: archive.get(away.conversation_id, away.version))
        if copy is None and self._version(away.conversation_id) == away.version:
            recorder().count(ARCHIVE_MOVES, "in", "failed")
            log.error(line("archive.lost", conversation_id=away.conversation_id))
            raise ArchiveLost(
                "the archive does not have this conversation: restore the archive from a backup, "
                "or check that AGENTAPI_ARCHIVE_URL names the database that the workers use",
                conversation_id=away.conversation_id,
            )
        return copy

    def ask(self, question: Callable[[Archive], T]) -> T:
        """Read from the archive. A slow or unavailable archive must not occupy all threads of a
        process.

        Raises:
            ArchiveUnavailable: It does not answer, or too many callers wait for it already.
        """
        if time.monotonic() < self._rests_until:
            raise ArchiveUnavailable("the archive did not answer a moment ago")
        if not self._places.acquire(timeout=_WAIT):
            raise ArchiveUnavailable(
                "the archive is slow, and too many callers wait for it already"
            )
        # While it is unavailable, one caller at a time checks whether it is back.
        self._rests_until = time.monotonic() + self._rest
        try:
            answer = question(self.ready())
        except ArchiveUnavailable:
            self._rest = min(max(_REST, 2 * self._rest), _LONGEST_REST)
            self._rests_until = time.monotonic() + self._rest
            raise
        else:
            self._rest = self._rests_until = 0.0
            return answer
        finally:
            self._places.release()

    def _stage(
        self,
        staged: Sequence[str],
        position: int,
        messages: Sequence[bytes],
        blobs: Mapping[str, bytes],
    ) -> None:
        self._call(
            "stage",
            staged,
            [
                *(position, milliseconds(STAGED_TTL), len(blobs)),
                *chain.from_iterable(blobs.items()),
                *messages,
            ],
        )

    def _version(self, conversation_id: str) -> str | None:
        with translate_errors(self._settings.redis_url):
            found = self._client.hget(conversation_keys(conversation_id).meta, "archived")
        return found.decode().partition(" ")[0] if isinstance(found, bytes) else None

    def away(self, conversation_id: str) -> Away | None:
        """The location of a conversation whose history is in the archive; None for any other."""
        version = self._version(conversation_id)
        return Away(conversation_id=conversation_id, version=version) if version else None

    def peek(self, conversation_id: str) -> ArchivedConversation | None:
        """Read an archived conversation without bringing it back; None if it is not archived.

        Raises: as `bring_back`.
        """
        away = self.away(conversation_id)
        if away is None:
            return None
        last = self._peeked
        if last is not None and last.row.version == away.version:
            return last
        found = self._copy(away)
        with self._peeking:
            if self._readers:
                self._peeked = found
        return found

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A context manager in whose body the last conversation read by `peek` is kept in memory,
        because the next call may need more of it."""
        with self._peeking:
            self._readers += 1
        try:
            yield
        finally:
            with self._peeking:
                self._readers -= 1
                if not self._readers:
                    self._peeked = None

    def discard(self, age: float = LEFTOVER_AGE) -> int:
        """Delete copies that have been unreferenced for some time; returns how many."""
        keys = [copies_key(partition) for partition in range(PARTITIONS)]
        with translate_errors(self._settings.redis_url):
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.exists(key)
            there = pipeline.execute()
        done = 0
        for key, exists in zip(keys, there, strict=True):
            if not exists:
                continue
            found = self._call("leftovers", [key], [_LEFTOVERS, milliseconds(age)])
            for copy in self.turns.discard(found):
                version, _, conversation_id = copy.decode().partition(":")
                self.ready().delete(conversation_id, version)
            if found:
                with translate_errors(self._settings.redis_url):
                    self._client.zrem(key, *(b"d:" + copy for copy in found))
            done += len(found)
        return done

    def expire(self) -> int:
        """Delete copies of conversations whose idle time has ended; returns how many."""
        with translate_errors(self._settings.redis_url):
            clock = self._client.time()
        after: tuple[int, str, str] | None = None
        deleted = 0
        while rows := self.ready().expired(clock[0] * 1000, after=after):
            for row in rows:
                # A waiting turn keeps its conversation.
                if self._version(row.conversation_id) != row.version:
                    deleted += self.ready().delete(row.conversation_id, row.version)
            last = rows[-1]
            after = (last.expires or 0, last.conversation_id, last.version)
        return deleted

    def close(self) -> None:
        """Close the archive's connections."""
        self.archive.close()


def _copies(conversation_id: str) -> str:
    return copies_key(partition_of(conversation_id))


def _is_cold(fields: Sequence[bytes | None], before: int) -> bool:
    created, updated, returned, archived = fields
    last = max(_number(updated), _number((returned or b"").partition(b" ")[0]))
    return created is not None and archived is None and last <= before


def _number(value: bytes | str | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0


def _texts(flat: Sequence[Any]) -> dict[str, str]:
    texts = [value.decode(errors="replace") for value in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    return {name: value for name, value in fields.items() if name not in TRANSIENT}


def _row(
    conversation_id: str,
    version: str,
    fields: Mapping[str, str],
    *,
    now: int,
    expires: int | None,
    messages: int,
) -> ArchivedRow:
    return ArchivedRow(
        conversation_id=conversation_id,
        version=version,
        user_id=fields.get("user", ""),
        tenant_id=fields.get("tenant", ""),
        generation=_number(fields.get("generation")),
        epoch=_number(fields.get("epoch")),
        created=_number(fields.get("created")),
        updated=_number(fields.get("updated")),
        archived=now,
        expires=expires,
        messages=messages,
    )
