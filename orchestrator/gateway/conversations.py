"""Conversations as the gateway needs them besides their turns: made, labelled, deleted."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson
import redis.asyncio

from agentapi import Settings
from agentapi.messages import Message, dumps, loads
from agentapi.records import reading
from agentapi.stores.connection import translate_errors
from agentapi.stores.keys import conversation_keys, turn_keys
from orchestrator.gateway.scripts import Scripts

_NO_BLOBS: Final[Mapping[str, bytes]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """A conversation.

    Attributes:
        created_at: Seconds since 1970.
        metadata: Its maker's own.
    """

    created_at: float
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """Turns that have not ended, oldest first."""

    turn_ids: Sequence[str]


def _conversation(created: bytes, metadata: bytes) -> Conversation:
    """Read what is stored of one.

    Raises:
        UnreadableRecord: It is not as any release writes it.
    """
    with reading("the meta hash of a conversation", remedy="delete the conversation"):
        found = orjson.loads(metadata)
        if not isinstance(found, dict):
            raise TypeError("metadata is not an object")
        return Conversation(created_at=int(created) / 1000, metadata=found)


class ConversationStore:
    """Reads and changes conversations by their ids in Redis; `TenantView` has the public ones."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts

    async def open(
        self,
        conversation_id: str,
        tenant: str,
        *,
        make: bool,
        user: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idle: float | None = None,
        operation: str = "",
        messages: Sequence[Message] = (),
        blobs: Mapping[str, bytes] = _NO_BLOBS,
    ) -> Conversation | None:
        """Find a conversation, and change it.

        Args:
            conversation_id: Its id in Redis.
            tenant: Whose it must be.
            make: Whether to begin it when it is not there.
            user: The user it begins with.
            metadata: Its metadata from now on; as they are when not given.
            idle: Seconds after which it is forgotten when idle; as it is when not given.
            operation: Names this call; a repeat with the same name appends nothing.
            messages: To append.
            blobs: Bytes of their images and files, by name.

        Returns:
            The conversation; None when it is not there or another tenant's.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        reply = await self._call(
            "conversation",
            [keys.meta, keys.messages, keys.inbox],
            [
                tenant,
                user or "",
                "any" if make else "known",
                "" if metadata is None else orjson.dumps(dict(metadata)),
                round((idle or self._settings.memory_ttl or 0) * 1000) if make else 0,
                operation,
                len(blobs),
                *chain.from_iterable(blobs.items()),
                *map(dumps, messages),
            ],
        )
        if reply[0] == b"missing":
            return None
        _, created, stored = reply
        return _conversation(created, stored)

    async def find(self, conversation_id: str, tenant: str) -> Conversation | None:
        """A conversation as it is; None when it is not there or another tenant's.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        meta = conversation_keys(conversation_id).meta
        with translate_errors(self._settings.redis_url):
            found = await self._client.hmget(meta, ["created", "tenant", "metadata"])
        created, owner, metadata = found
        if created is None or owner != tenant.encode():
            return None
        return _conversation(created, metadata or b"{}")

    async def messages(self, conversation_id: str, start: int = 0, stop: int = -1) -> list[Message]:
        """Messages by position, oldest first, the last position included.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        key = conversation_keys(conversation_id).messages
        with translate_errors(self._settings.redis_url):
            found: list[Any] = await self._client.lrange(key, start, stop)
        return [loads(message) for message in found]

    async def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of images and files by their names; those that are there.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        if not names:
            return {}
        key = conversation_keys(conversation_id).blobs
        with translate_errors(self._settings.redis_url):
            found = await self._client.hmget(key, list(names))
        return {n: data for n, data in zip(names, found, strict=True) if isinstance(data, bytes)}

    async def remove(self, conversation_id: str, message: Message) -> bool:
        """Take one message out of the history; returns whether it was there.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        return bool(
            await self._call(
                "remove", [keys.meta, keys.messages], [dumps(message), uuid.uuid4().hex]
            )
        )

    async def drop(self, conversation_id: str, tenant: str) -> Sequence[Message] | Busy | None:
        """Delete a conversation.

        Returns:
            The messages it had; or its turns that have not ended, and nothing was deleted; or
            None when it is not there or another tenant's.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        reply = await self._call(
            "drop", [keys.meta, keys.messages, keys.inbox, keys.lease], [tenant]
        )
        match reply:
            case [b"busy", turn_ids]:
                return Busy(turn_ids=[turn_id.decode() for turn_id in turn_ids])
            case [b"dropped", messages]:
                return [loads(message) for message in messages]
            case _:
                return None

    async def forget(self, conversation_id: str, turn_id: str) -> bool:
        """Delete a turn of a conversation; returns false, and keeps it, when it has not ended.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = turn_keys(turn_id)
        reply = await self._call(
            "forget", [keys.turn, keys.events, keys.journal, keys.calls], [conversation_id]
        )
        return bool(reply[0] != b"running")

    async def may_continue(self, conversation_id: str, turn_id: str, operation: str) -> bool:
        """Whether a new turn may follow a given one where it is, rather than in a copy.

        Args:
            conversation_id: The conversation of both, as it is in Redis.
            turn_id: The turn to continue.
            operation: Names the new turn; a repeat with the same name gets the same answer.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        reply = await self._call(
            "succeed", [turn_keys(turn_id).turn, keys.messages, keys.inbox], [turn_id, operation]
        )
        return bool(reply[0] == b"here")

    async def _call(self, name: str, keys: list[str], args: list[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            return await self._scripts.call(name, keys, args)
