"""Conversations outside of their turns, in Redis; the `ConversationStore` of callers on threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import redis
from typing_extensions import override

from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys
from agentapi.redis.scripts import ScriptRun, Scripts
from agentapi.settings import Settings
from agentapi.stores.conversations import (
    ConversationRecord,
    ConversationStore,
    Dropped,
    ForgottenTurn,
    Fork,
    Measured,
    OpenConversation,
    Page,
    Place,
    Reading,
    Search,
    SearchOn,
    StoredMessage,
    Unended,
    Wiped,
)
from agentapi.stores.redis import conversation_scripts as scripts

T = TypeVar("T")

FIELDS = ("created", "tenant", "metadata")
"""Fields of a meta hash with a conversation's owner and labels."""


def found_for(tenant_id: str | None, fields: list[bytes | None]) -> ConversationRecord | None:
    """The conversation that `FIELDS` describe, if it belongs to a tenant."""
    created, owner, metadata = fields
    if created is None or owner != (tenant_id or "").encode():
        return None
    return scripts.record_from(created, metadata or b"{}")


class RedisConversations(ConversationStore):
    """The `ConversationStore` in Redis. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts

    @override
    def open(self, opening: OpenConversation) -> ConversationRecord | None:
        return self._run(scripts.open_conversation(opening, self._settings))

    @override
    def find(self, conversation_id: str, tenant_id: str | None) -> ConversationRecord | None:
        with translate_errors(self._settings.redis_url):
            fields = self._client.hmget(conversation_keys(conversation_id).meta, FIELDS)
        return found_for(tenant_id, cast("list[bytes | None]", fields))

    @override
    def remove(
        self, conversation_id: str, tenant_id: str | None, message: StoredMessage, operation: str
    ) -> bool:
        return self._run(scripts.remove(conversation_id, tenant_id, message, operation))

    @override
    def drop(
        self,
        conversation_id: str,
        tenant_id: str | None,
        operation: str,
        *,
        expected: int | None = None,
    ) -> Dropped | Unended | None:
        return self._run(scripts.drop(conversation_id, tenant_id, operation, expected))

    @override
    def wipe(self, dropped: Dropped, step: str) -> Wiped:
        return self._run(scripts.wipe(dropped, step))

    @override
    def forget(
        self, conversation_id: str, turn_id: str, operation: str
    ) -> ForgottenTurn | Unended | None:
        return self._run(scripts.forget(conversation_id, turn_id, operation))

    @override
    def relabel(
        self,
        conversation_id: str,
        turn_id: str,
        metadata: Mapping[str, Any],
        operation: str,
        *,
        part: int = 0,
    ) -> bool:
        return self._run(scripts.relabel(conversation_id, turn_id, metadata, operation, part))

    @override
    def continue_from(
        self, conversation_id: str, turn_id: str, operation: str, *, take: bool
    ) -> bool:
        return self._run(scripts.continue_from(conversation_id, turn_id, operation, take=take))

    @override
    def fork(self, fork: Fork, copied: int) -> int | None:
        return self._run(scripts.fork(fork, copied))

    @override
    def page(self, conversation_id: str, tenant_id: str | None, reading: Reading) -> Page | None:
        return self._run(scripts.page(conversation_id, tenant_id, reading))

    @override
    def seek(
        self, conversation_id: str, tenant_id: str | None, search: Search
    ) -> Place | SearchOn | None:
        return self._run(scripts.seek(conversation_id, tenant_id, search))

    @override
    def measure(
        self, conversation_id: str, tenant_id: str | None, reading: Reading
    ) -> Measured | None:
        return self._run(scripts.measure(conversation_id, tenant_id, reading))

    def _run(self, run: ScriptRun[T]) -> T:
        with translate_errors(self._settings.redis_url):
            return self._scripts.run(run)
