"""A gateway whose every script is run twice, as when its answer was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis

from agentapi.conversation.messages import Message
from agentapi.redis.aio import AsyncScripts
from agentapi.redis.keys import ConversationKeys, conversation_keys
from agentapi.stores.redis.scripts import SCRIPTS as STORES
from orchestrator.gateway.conversations.records import Conversations
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.gateway.tenants.ledger import Ledger
from orchestrator.gateway.tenants.scripts import SCRIPTS as TENANTS
from orchestrator.gateway.view import TenantView
from tests.conformance.stores import Bench, completed
from tests.property.repeating import (
    AsyncRepeatingScripts,
    Clock,
    RepeatingScripts,
    Repeats,
    on_redis_twice,
)

TENANT = "t"

COUNT_AGAIN = frozenset({"rate"})
"""Each request counts against the tenant's rate, also one that is repeated."""


@dataclass
class Rig:
    """A tenant's view, and what a test does behind its back.

    Attributes:
        bench: Turns, by the same clock.
        client: The same Redis.
    """

    view: TenantView
    bench: Bench
    client: redis.Redis
    clock: Clock

    @property
    def gateway(self) -> Gateway:
        return self.view.gateway

    @property
    def store(self) -> Conversations:
        return self.view.gateway.conversations

    @property
    def ledger(self) -> Ledger:
        return self.view.gateway.ledger

    def another_ledger(self, **settings: Any) -> Ledger:
        """One with other limits."""
        changed = self.gateway.settings.model_copy(update=settings)
        ledger = Ledger(changed, self.gateway.redis)
        ledger._scripts = self.ledger._scripts
        return ledger

    def keys(self, conversation: str) -> ConversationKeys:
        return conversation_keys(self.view.internal(conversation))

    async def fill(self, conversation: str, messages: list[Message]) -> None:
        await self.view.append(conversation, messages, make=True)

    def queued(self, conversation: str, **more: Any) -> str:
        """A turn that waits."""
        return self.bench.enqueue(self.view.internal(conversation), tenant_id=TENANT, **more)

    def ended(self, conversation: str) -> str:
        """A turn with two messages in the history."""
        turn_id = self.queued(conversation)
        lease = self.bench.claim(turn_id, self.view.internal(conversation)).lease
        self.bench.store.commit(lease, completed(turn_id))
        return turn_id


@asynccontextmanager
async def gateway_twice(
    url: str, tenants: Repeats, conversations: Repeats, **overrides: Any
) -> AsyncIterator[Rig]:
    """A gateway on an emptied Redis.

    Args:
        url: Where Redis is.
        tenants: Compares the repeats of the scripts about tenants.
        conversations: Compares those of the stores' scripts that the gateway runs.
        overrides: Settings.
    """
    with redis.Redis.from_url(url) as client:
        clock = Clock(client)
        bench = on_redis_twice(url, Repeats(set()), clock, **overrides)
        settings = load_gateway_settings(**{**bench.settings.model_dump(), **overrides})
        gateway = Gateway(settings)
        twice = RepeatingScripts(client, TENANTS, tenants, clock.tick)
        for caller in (gateway.ledger, gateway.rate_limiter, gateway.stored_chats):
            caller._scripts = cast("AsyncScripts", AsyncRepeatingScripts(twice))
        twice = RepeatingScripts(client, STORES, conversations, clock.tick)
        gateway.conversations._scripts = cast("AsyncScripts", AsyncRepeatingScripts(twice))
        gateway.orchestrator.store = bench.store
        # Nobody waits for workers to say which agents they have: there are none.
        gateway.agents._fixed = ("a",)
        try:
            yield Rig(TenantView(gateway, TENANT), bench, client, clock)
        finally:
            await gateway.aclose()
            bench.store.close()
