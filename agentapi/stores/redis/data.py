"""The data of a user or tenant in Redis: search, deletion, export and import."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, Final, TypeAlias, cast

import redis
from typing_extensions import override

from agentapi.archive.protocol import ArchivedConversation
from agentapi.errors import ArchiveUnavailable
from agentapi.ids import PARTITIONS
from agentapi.redis.cluster import nodes_of
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, copies_key, ends_key, turn_keys
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.conversations import Dropped
from agentapi.stores.data import (
    FORGET,
    STAGED_TTL,
    DataStore,
    OwnedConversation,
    OwnedTurn,
    Restored,
    Snapshot,
    Staging,
    Whose,
    fields_of,
)
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.turn_archiving import moved_keys
from agentapi.stores.redis.values import ENDED, milliseconds
from agentapi.stores.refusals import unexpected

_SCAN: Final = 1000
"""Maximum keys that one step examines."""

_META: Final = "agentapi:{*}:c:*:meta"
"""The records of conversations."""

_TURNS: Final = "agentapi:{*}:t:" + "?" * len("000-") + "?" * 32
"""The keys of turns. Other keys that belong to a turn are longer."""

_REMAINS: Final = re.compile(
    rf"agentapi:\{{\d{{3}}\}}:c:(.+):messages:dropped:{FORGET}[0-9a-f]{{32}}", re.S
)

_TAGGED: Final = len("agentapi:{000}:c:")

_Found: TypeAlias = tuple[bytes, list[bytes | None]]


class RedisData(RedisPart, DataStore):
    """The `DataStore` in Redis. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        scripts: Scripts,
        archiving: RedisArchiving | None = None,
    ) -> None:
        super().__init__(settings, client, scripts)
        self._archiving = archiving

    @override
    def conversations(self, whose: Whose) -> Iterator[OwnedConversation]:
        for key, fields in self._found(_META, ["created", "user", "tenant"]):
            created, user, tenant = fields
            if created is not None and whose.fits(_text(user), _text(tenant)):
                conversation = key.decode()[_TAGGED:].removesuffix(":meta")
                yield OwnedConversation(
                    conversation_id=conversation, tenant_id=_text(tenant) or None
                )

    @override
    def turns(self, whose: Whose, within: Collection[str] = ()) -> Iterator[OwnedTurn]:
        names = ["status", "conversation", "user", "tenant"]
        seen: set[str] = set()
        for keys in self._pieces(_TURNS):
            calls: list[Call] = [([key.decode()], names) for key in keys]
            with translate_errors(self._settings.redis_url):
                found = self._scripts.call_many("about", calls)
            for key, fields in zip(keys, found, strict=True):
                # A key of another type does not hold what its name suggests.
                status, conversation, user, tenant = fields or [None] * len(names)
                known = status is not None and conversation is not None
                where = _text(conversation)
                if known and (where in within or whose.fits(_text(user), _text(tenant))):
                    turn_id = key.decode()[_TAGGED:]
                    seen.add(turn_id)
                    yield OwnedTurn(turn_id=turn_id, conversation_id=where, ended=status in ENDED)
        # Searched after Redis, so that data that moves meanwhile is found here.
        if self._archiving is not None:
            for turn in self._archiving.turns.owned(whose.user_id, whose.tenant_id, within):
                if turn.turn_id in seen:
                    continue
                yield OwnedTurn(
                    turn_id=turn.turn_id, conversation_id=turn.conversation_id, ended=True
                )

    @override
    def require_archive(self) -> None:
        if self._archiving is not None:
            return
        # Copies of conversations that have come back stay in the archive for an hour.
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            pipeline.exists(copies_key(partition), *moved_keys(partition))
        with translate_errors(self._settings.redis_url):
            copies = any(pipeline.execute())
        if copies or any(fields[0] for _, fields in self._found(_META, ["archived"])):
            raise ArchiveUnavailable(
                "conversations or turns are in the archive, but this process has no archive: set "
                "AGENTAPI_ARCHIVE_URL here to the same value as in the workers"
            )

    def _found(self, pattern: str, names: Sequence[str]) -> Iterator[_Found]:
        """Matching keys with some of their fields, step by step."""
        for keys in self._pieces(pattern):
            with translate_errors(self._settings.redis_url):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hmget(key, list(names))
                found = pipeline.execute(raise_on_error=False)
            for key, fields in zip(keys, found, strict=True):
                # A key of another type does not hold what its name suggests.
                if isinstance(fields, list):
                    yield key, fields

    def _keys(self, pattern: str) -> Iterator[bytes]:
        return chain.from_iterable(self._pieces(pattern))

    def _pieces(self, pattern: str) -> Iterator[Sequence[bytes]]:
        """Matching keys, a few at a time, so that Redis serves others in between."""
        for client in nodes_of(self._client):
            yield from self._pieces_of(client, pattern)

    def _pieces_of(self, client: redis.Redis, pattern: str) -> Iterator[Sequence[bytes]]:
        cursor = 0
        while True:
            with translate_errors(self._settings.redis_url):
                cursor, keys = client.scan(cursor, pattern, _SCAN)
            if keys:
                yield cast("Sequence[bytes]", keys)
            if cursor == 0:
                return

    @override
    def remains(self) -> Iterator[Dropped]:
        for key in self._keys(f"agentapi:{{*}}:c:*:messages:dropped:{FORGET}*"):
            found = _REMAINS.fullmatch(key.decode())
            if found is not None:
                yield Dropped(conversation_id=found[1], left=found[0])

    @override
    def erase(self, turn: OwnedTurn, operation: str) -> int | None:
        keys = conversation_keys(turn.conversation_id)
        reply = self._call(
            "erase",
            [turn_keys(turn.turn_id).turn, keys.meta, keys.messages, keys.inbox],
            [turn.turn_id, turn.conversation_id, operation],
        )
        match reply:
            case [b"erased", count]:
                return int(count)
            case [b"running"]:
                return None
            case [b"missing"]:
                return 0
            case _:
                raise unexpected("erase", reply)

    @override
    def erase_ends(self, whose: Whose) -> int:
        erased = 0
        for partition in range(PARTITIONS):
            key, after = ends_key(partition), "-"
            while True:
                with translate_errors(self._settings.redis_url):
                    entries = cast("list[Any]", self._client.xrange(key, after, "+", _SCAN))
                    theirs = [
                        entry
                        for entry, fields in entries
                        if whose.fits(_text(fields.get(b"user")), _text(fields.get(b"tenant")))
                    ]
                    erased += int(self._client.xdel(key, *theirs)) if theirs else 0
                if len(entries) < _SCAN:
                    break
                after = f"({entries[-1][0].decode()}"
        return erased

    @override
    def erase_copies(self, whose: Whose) -> int:
        if self._archiving is None:
            return 0
        archive = self._archiving.ready()
        found = archive.delete_of(user_id=whose.user_id, tenant_id=whose.tenant_id)
        turns = archive.delete_turns_of(user_id=whose.user_id, tenant_id=whose.tenant_id)
        return found.conversations + turns

    @override
    def snapshot(self, conversation_id: str) -> Snapshot | None:
        keys = conversation_keys(conversation_id)
        # A transaction: a turn that ends in between would add messages that are not in the record.
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hgetall(keys.meta)
        pipeline.llen(keys.messages)
        pipeline.lindex(keys.messages, -1)
        with translate_errors(self._settings.redis_url):
            record, count, last = pipeline.execute()
        if b"created" not in record:
            return None
        copy = self._archived(conversation_id) if b"archived" in record else None
        if copy is not None:
            # It stays in the archive, because an export must not bring everything back.
            record = {name.encode(): value.encode() for name, value in copy.fields.items()} | record
            count, last = copy.row.messages, copy.messages[-1]
        fields = {_text(name): _text(value) for name, value in record.items()}
        return Snapshot(
            conversation_id=conversation_id,
            generation=int(fields.get("generation", 0)),
            messages=int(count),
            last=last or b"",
            imported=fields.get("imported", "").partition(" ")[0],
            fields=fields_of(fields),
        )

    @override
    def raw(self, conversation_id: str, start: int, stop: int) -> Sequence[bytes]:
        key = conversation_keys(conversation_id).messages
        with translate_errors(self._settings.redis_url):
            found = cast("list[bytes]", self._client.lrange(key, start, stop))
        copy = None if found else self._archived(conversation_id)
        return found if copy is None else copy.messages[start : stop + 1]

    def _archived(self, conversation_id: str) -> ArchivedConversation | None:
        if self._archiving is None:
            self._refuse_archived(conversation_id)
            return None
        return self._archiving.peek(conversation_id)

    @override
    def reading(self) -> AbstractContextManager[None]:
        return nullcontext() if self._archiving is None else self._archiving.reading()

    @override
    def stage(
        self,
        staging: Staging,
        position: int,
        messages: Sequence[bytes],
        blobs: Mapping[str, bytes] | None = None,
    ) -> bool:
        given = blobs or {}
        reply = self._call(
            "stage",
            _staged(staging),
            [
                position,
                milliseconds(STAGED_TTL),
                len(given),
                *chain.from_iterable(given.items()),
                *messages,
            ],
        )
        return bool(reply[0] == b"staged")

    @override
    def restore(
        self,
        staging: Staging,
        fields: Mapping[str, str],
        *,
        messages: int,
        digest: str,
        replace: bool,
    ) -> Restored:
        keys = conversation_keys(staging.conversation_id)
        reply = self._call(
            "restore",
            [keys.meta, keys.messages, keys.inbox, keys.blobs, *_staged(staging)],
            [
                staging.operation,
                digest,
                "replace" if replace else "new",
                fields.get("tenant", ""),
                messages,
                int(self._settings.list_limit > 0),
                *chain.from_iterable(fields.items()),
            ],
        )
        return Restored(reply[0].decode())


def _staged(staging: Staging) -> list[str]:
    keys = conversation_keys(staging.conversation_id)
    return [f"{key}:import:{staging.operation}" for key in (keys.messages, keys.blobs)]


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
