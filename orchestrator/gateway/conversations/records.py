"""A tenant's conversations in the gateway: the store's transitions, on the event loop.

Long work is done in steps. Only a few steps of one tenant run at the same time, so that no tenant
keeps Redis or the event loop from the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar, cast

import redis.asyncio

from agentapi import Settings
from agentapi.conversation.messages import Message
from agentapi.redis.aio import AsyncScripts
from agentapi.redis.archived import Absent
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys
from agentapi.redis.scripts import ScriptRun
from agentapi.stores.conversations import (
    ConversationRecord,
    Dropped,
    ForgottenTurn,
    Fork,
    OpenConversation,
    StoredMessage,
    Unended,
)
from agentapi.stores.lists import ConversationSummary
from agentapi.stores.redis import conversation_scripts as scripts
from agentapi.stores.redis.conversations import FIELDS, found_for
from agentapi.stores.redis.lists_codec import conversation_summary
from agentapi.stores.redis.scripts import SCRIPTS
from orchestrator.gateway.tenants.concurrency import TenantConcurrency

T = TypeVar("T")

_SUMMARY: Final = (
    *("created", "updated", "agent", "tenant", "user", "turns", "tokens", "cost", "metadata"),
)
"""Fields of a meta hash that describe a conversation in a list."""

STEPS: Final = 2
"""Maximum concurrent steps of long reads and changes of one tenant."""


class Conversations:
    """Reads and changes conversations by their ids in Redis; `TenantView` has the public ids."""

    def __init__(
        self,
        settings: Settings,
        client: redis.asyncio.Redis,
        bring_back: Callable[[Absent], object] | None = None,
    ) -> None:
        """Create the store; it connects when first used.

        Args:
            settings: Address of Redis.
            client: A client of that Redis.
            bring_back: Restores records from the archive, if there is one.
        """
        self._settings = settings
        self._client = client
        self._scripts = AsyncScripts(settings, client, SCRIPTS)
        self._scripts.bring_back = bring_back
        self._steps = TenantConcurrency(STEPS)

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
    ) -> ConversationRecord | None:
        """Create, label or extend a conversation.

        Args:
            conversation_id: Its id in Redis.
            tenant: The tenant that it must belong to.
            make: Whether to create it if it does not exist.
            user: The user that a new conversation begins with.
            metadata: Its new metadata; unchanged when not given.
            idle: Seconds of inactivity after which it is deleted; unchanged when not given.
            operation: Identifies this call; a repeat with the same value appends nothing.
            messages: Messages to append.

        Returns:
            The conversation; None when it does not exist, or belongs to another tenant.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        opening = OpenConversation(
            conversation_id=conversation_id,
            tenant_id=tenant,
            create=make,
            user_id=user,
            metadata=metadata,
            idle_time=idle,
            operation=operation,
            messages=messages,
        )
        return await self.run(scripts.open_conversation(opening, self._settings))

    async def find(self, conversation_id: str, tenant: str) -> ConversationRecord | None:
        """A conversation; None when it does not exist, or belongs to another tenant.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        meta = conversation_keys(conversation_id).meta
        with translate_errors(self._settings.redis_url):
            fields = await self._client.hmget(meta, FIELDS)
        return found_for(tenant, cast("list[bytes | None]", fields))

    async def summary(self, conversation_id: str) -> ConversationSummary | None:
        """A conversation of any tenant, as in a list; None when it does not exist.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        keys = conversation_keys(conversation_id)
        with translate_errors(self._settings.redis_url):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hmget(keys.meta, *_SUMMARY, "archived")
            pipeline.llen(keys.inbox)
            pipeline.llen(keys.messages)
            (*values, archived), waiting, messages = await pipeline.execute()
        found = {name: value for name, value in zip(_SUMMARY, values, strict=True) if value}
        if archived is not None:
            messages = int(archived.partition(b" ")[2])
            found["archived"] = b"1"
        if "created" not in found:
            return None
        found |= {"waiting": b"%d" % waiting, "messages": b"%d" % messages}
        flat = [part for name, value in found.items() for part in (name.encode(), value)]
        return conversation_summary(conversation_id, flat)

    async def head(self, conversation_id: str) -> str | None:
        """The turn of a conversation that is running, waiting for something, or next to run.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        inbox = conversation_keys(conversation_id).inbox
        with translate_errors(self._settings.redis_url):
            found = cast("bytes | None", await self._client.lindex(inbox, 0))
        return found.decode() if found is not None else None

    async def remove(
        self, conversation_id: str, tenant: str, message: StoredMessage, operation: str
    ) -> bool:
        """Remove a message from a history; returns whether it was still at the position where it
        was read.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        return await self.run(scripts.remove(conversation_id, tenant, message, operation))

    async def drop(
        self, conversation_id: str, tenant: str, operation: str, *, expected: int | None = None
    ) -> Dropped | Unended | None:
        """Delete a conversation. It disappears immediately; `wipe` deletes its remaining data.

        Args:
            conversation_id: Its id in Redis.
            tenant: The tenant that it must belong to.
            operation: Identifies this call; a repeat finds the remaining data until it is wiped.
            expected: How many messages it must have; any number when not given.

        Returns:
            Its remaining data; or its unfinished turns, in which case nothing was deleted; or None
            if it does not exist, belongs to another tenant, or has another number of messages.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        return await self.run(scripts.drop(conversation_id, tenant, operation, expected))

    async def wipe(self, dropped: Dropped, tenant: str) -> list[ForgottenTurn]:
        """Delete all messages and turns of a dropped conversation, step by step.

        Returns:
            The turns that were deleted.

        Raises:
            StoreUnavailable: Redis cannot be reached. The remaining data then expires.
        """
        turns: list[ForgottenTurn] = []
        left = 1
        while left:
            wiped = await self.step(tenant, scripts.wipe(dropped, uuid.uuid4().hex))
            left = wiped.left
            turns += wiped.turns
        return turns

    async def forget(self, conversation_id: str, turn_id: str) -> ForgottenTurn | Unended | None:
        """Delete a turn of a conversation.

        Returns:
            What was deleted; or the turn, if it has not ended and was kept; or None if it does not
            exist.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        return await self.run(scripts.forget(conversation_id, turn_id, uuid.uuid4().hex))

    async def relabel(
        self, conversation_id: str, turn_id: str, metadata: Mapping[str, Any], part: int
    ) -> bool:
        """Change the metadata of a turn that has ended, or of one of its parts.

        Args:
            conversation_id: The turn's conversation, as it is in Redis.
            turn_id: The turn.
            metadata: Its new metadata, which replaces the old.
            part: The part's number; 0 for the turn.

        Returns:
            Whether it exists, and the turn has ended.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        run = scripts.relabel(conversation_id, turn_id, metadata, uuid.uuid4().hex, part)
        return await self.run(run)

    async def continue_from(
        self, conversation_id: str, turn_id: str, operation: str, *, take: bool
    ) -> bool:
        """Check whether a new turn may follow a given turn in the same conversation, instead of in
        a copy.

        Args:
            conversation_id: The conversation of both, as it is in Redis.
            turn_id: The turn to continue.
            operation: Identifies the new turn; a repeat with the same value gets the same answer.
            take: Whether to reserve the place, so that no other turn can take it.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        return await self.run(scripts.continue_from(conversation_id, turn_id, operation, take=take))

    async def fork(self, fork: Fork, tenant: str) -> bool:
        """Copy the beginning of a history, step by step; returns false if it has changed.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        copied: int | None = 0
        while copied is not None and copied <= fork.place.position:
            copied = await self.step(tenant, scripts.fork(fork, copied))
        return copied is not None

    def slot(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """One of the tenant's slots for long work, held while the work runs."""
        return self._steps.slot(tenant)

    async def step(self, tenant: str, run: ScriptRun[T]) -> T:
        """Run a step of long work when one of the tenant's slots is free.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        # Release the slot after each step, so that a tenant's short reads can run between long
        # ones.
        async with self._steps.slot(tenant):
            return await self.run(run)

    async def run(self, run: ScriptRun[T]) -> T:
        """Run a script of the store.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        return await self._scripts.run(run)
