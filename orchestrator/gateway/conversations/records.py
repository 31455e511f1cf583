"""Conversations as the gateway needs them besides their turns: made, labelled, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis.asyncio

from agentapi import Settings
from agentapi.conversation.messages import Message, dumps
from agentapi.decoding.records import reading
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, turn_keys
from orchestrator.gateway.scripts import Scripts
from orchestrator.gateway.tenants.concurrency import TenantConcurrency

_WIPE_MESSAGES: Final = 200
_WIPE_BYTES: Final = 1_048_576
"""Messages, and their bytes, that are deleted at once."""

_LEFT_TTL: Final = 3_600_000
"""Milliseconds after which what a dropped conversation left behind goes by itself."""

LONG_READS: Final = 2
"""Long reads of one tenant at the same time."""


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
class Kept:
    """A message of a history.

    Attributes:
        position: Its place, counted from 0.
        raw: As it is stored.
    """

    position: int
    raw: bytes
    message: Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A conversation that was deleted, and the key of what it leaves behind."""

    conversation_id: str
    left: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """Turns that have not ended, oldest first."""

    turn_ids: Sequence[str]


def _conversation(created: bytes | str, metadata: bytes | str) -> Conversation:
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
    """Reads and changes conversations by their ids in Redis; `TenantView` has the public ones.

    Attributes:
        reads: Limits the steps of long reads.
    """

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts
        self.reads = TenantConcurrency(LONG_READS)

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

        Returns:
            The conversation; None when it is not there or another tenant's.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        reply = await self.call(
            "conversation",
            [keys.meta, keys.messages, keys.inbox],
            [
                tenant,
                user or "",
                "any" if make else "known",
                "" if metadata is None else orjson.dumps(dict(metadata)),
                round((idle or self._settings.memory_ttl or 0) * 1000) if make else 0,
                operation,
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

    async def remove(self, conversation_id: str, tenant: str, kept: Kept, operation: str) -> bool:
        """Take one message out of a history; returns whether it was where it was read.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        args = [tenant, kept.position, kept.raw, operation]
        reply = await self.call("remove", [keys.meta, keys.messages], args)
        return bool(reply[0] == b"removed")

    async def drop(
        self, conversation_id: str, tenant: str, operation: str, *, expected: int = -1
    ) -> Dropped | Busy | None:
        """Delete a conversation. It is gone at once; `wipe` deletes what it leaves behind.

        Args:
            conversation_id: Its id in Redis.
            tenant: Whose it must be.
            operation: Names this call; a repeat with the same name answers as the first did.
            expected: How many messages it must have; any number when not given.

        Returns:
            What it leaves behind; or its turns that have not ended, and nothing was deleted; or
            None when it is not there, another tenant's, or has another number of messages.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        left = f"{keys.messages}:dropped:{operation}"
        reply = await self.call(
            "drop",
            [keys.meta, keys.messages, keys.inbox, keys.lease, keys.due, left],
            [tenant, conversation_id, keys.turns, expected, _LEFT_TTL],
        )
        match reply:
            case [b"busy", turn_ids]:
                return Busy(turn_ids=[turn_id.decode() for turn_id in turn_ids])
            case [b"dropped"]:
                return Dropped(conversation_id=conversation_id, left=left)
            case _:
                return None

    async def wipe(self, dropped: Dropped, tenant: str) -> dict[int, int]:
        """Delete messages and turns of a conversation that was dropped, step by step.

        Returns:
            Bytes of the turns, by the hour in which they were accepted.

        Raises:
            StoreUnavailable: Redis is out of reach. What is left then expires.
        """
        prefix = conversation_keys(dropped.conversation_id).turns
        args = [dropped.conversation_id, prefix, _WIPE_MESSAGES, _WIPE_BYTES]
        left, freed = 1, dict[int, int]()
        while left:
            async with self.reads.slot(tenant):
                left, *hours = await self.call("wipe", [dropped.left], args)
            for hour, size in zip(hours[::2], hours[1::2], strict=True):
                freed[int(hour)] = freed.get(int(hour), 0) + int(size)
        return freed

    async def forget(self, conversation_id: str, turn_id: str) -> dict[int, int] | None:
        """Delete a turn of a conversation.

        Returns:
            Its bytes, by the hour in which it was accepted; None when it has not ended, and is
            kept.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        reply = await self.call("forget", [turn_keys(turn_id).turn], [conversation_id])
        if reply[0] == b"running":
            return None
        return {int(reply[1]): int(reply[2])} if reply[0] == b"forgotten" else {}

    async def may_continue(
        self, conversation_id: str, turn_id: str, operation: str, *, take: bool = True
    ) -> bool:
        """Whether a new turn may follow a given one where it is, rather than in a copy.

        Args:
            conversation_id: The conversation of both, as it is in Redis.
            turn_id: The turn to continue.
            operation: Names the new turn; a repeat with the same name gets the same answer.
            take: Whether no other turn may from now on.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = conversation_keys(conversation_id)
        reply = await self.call(
            "succeed",
            [turn_keys(turn_id).turn, keys.messages, keys.inbox],
            [turn_id, operation, "take" if take else "ask"],
        )
        return bool(reply[0] == b"here")

    async def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script of the gateway.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._settings.redis_url):
            return await self._scripts.call(name, keys, args)
