"""What all requests of a gateway process share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from agentapi import Settings
from agentapi.errors import ConfigurationError
from agentapi.redis.aio import connect
from agentapi.supervision import Supervisor
from orchestrator.blocking import BlockingCalls
from orchestrator.client import Orchestrator
from orchestrator.events.async_follower import AsyncFollower
from orchestrator.events.follower import PAGE, EventFollower
from orchestrator.gateway.conversations.records import Conversations
from orchestrator.gateway.directory import ModelDirectory, WorkerCensus
from orchestrator.gateway.http.strangers import Strangers
from orchestrator.gateway.openai.item_reader import Positions
from orchestrator.gateway.tenants.auditor import Auditor
from orchestrator.gateway.tenants.keys import KeyStore
from orchestrator.gateway.tenants.ledger import Ledger
from orchestrator.gateway.tenants.quota import Limiter
from orchestrator.gateway.tenants.slots import Slots

T = TypeVar("T")

THREADS: Final = 4
"""For the producer's short calls; each holds at most one connection to Redis."""

CONNECTIONS: Final = 8
"""To Redis, for the event loop's short commands."""


class Gateway:
    """The producer, the follower, keys and limits. Connects when first used."""

    def __init__(self, settings: Settings) -> None:
        """Make them.

        Raises:
            ConfigurationError: A setting is not valid, or eager mode is on.
        """
        if settings.eager:
            raise ConfigurationError(
                "AGENTAPI_EAGER is set: the gateway needs Redis and workers, unset it"
            )
        self.settings = settings
        self.orchestrator = Orchestrator(settings)
        self.redis = connect(settings, connections=CONNECTIONS)
        self.conversations = Conversations(settings, self.redis)
        self.supervisor = Supervisor()
        # In place of the producer's own follower: this process may be ended, and started again,
        # if its events can no longer be read.
        limit = settings.gateway_stream_buffer
        events = EventFollower(self.orchestrator.store, self.supervisor, min(PAGE, limit))
        self.orchestrator.follower = events
        self._call = BlockingCalls(THREADS, "agentapi-gateway")
        self.follower = AsyncFollower(events, self.orchestrator.store, self._call, limit)
        self.keys = KeyStore(settings, self.redis)
        self.slots = Slots(settings.gateway_streams)
        self.strangers = Strangers(settings.gateway_wrong_keys_per_minute)
        self.limiter = Limiter(settings, self.redis)
        self.ledger = Ledger(settings, self.redis)
        self.auditor = Auditor(self.ledger, self.supervisor)
        self.positions = Positions()
        self.census = WorkerCensus(settings)
        self.models = ModelDirectory(settings, self.census)

    async def call(self, function: Callable[[Orchestrator], T]) -> T:
        """Run a short blocking call of the producer in a thread."""
        return await self._call(partial(function, self.orchestrator))

    def start(self) -> None:
        """Begin to follow events and to count, and ask who the workers are."""
        self.follower.start()
        self.auditor.start()
        self.census.refresh()

    def stop_streams(self) -> None:
        """End every stream with a place to resume from, and every wait."""
        self.follower.stop()

    async def aclose(self) -> None:
        """Close everything: readers first, the connections they use last."""
        await self.auditor.aclose()
        self.follower.stop()
        await self.census.aclose()
        await self.call(lambda orchestrator: orchestrator.close())
        self._call.close()
        await self.redis.aclose()
