"""What all requests of a gateway process share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from agentapi.errors import ConfigurationError
from agentapi.redis.aio import connect
from agentapi.supervision import Supervisor
from orchestrator.client import Orchestrator
from orchestrator.events.async_follower import AsyncFollower
from orchestrator.gateway.conversations.records import ConversationStore
from orchestrator.gateway.directory import ModelDirectory, WorkerCensus
from orchestrator.gateway.http.strangers import Strangers
from orchestrator.gateway.openai.item_reader import Positions
from orchestrator.gateway.scripts import Scripts
from orchestrator.gateway.settings import GatewaySettings
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

    def __init__(self, settings: GatewaySettings) -> None:
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
        scripts = Scripts(self.redis)
        self.conversations = ConversationStore(settings, self.redis, scripts)
        self.supervisor = Supervisor()
        self.follower = AsyncFollower(
            settings, self.redis, self.supervisor, buffer=settings.gateway_stream_buffer
        )
        self.keys = KeyStore(settings, self.redis)
        self.slots = Slots(settings.gateway_streams)
        self.strangers = Strangers(settings.gateway_wrong_keys_per_minute)
        self.limiter = Limiter(settings, self.redis, scripts)
        self.ledger = Ledger(settings, self.redis, scripts)
        self.auditor = Auditor(self.ledger, self.supervisor)
        self.positions = Positions()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="agentapi-gateway")
        self.census = WorkerCensus(settings)
        self.models = ModelDirectory(settings, self.census)

    async def call(self, function: Callable[[Orchestrator], T]) -> T:
        """Run a short blocking call of the producer in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, self.orchestrator)

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
        await self.follower.aclose()
        await self.census.aclose()
        await self.call(lambda orchestrator: orchestrator.close())
        self._threads.shutdown(wait=False)
        await self.redis.aclose()
