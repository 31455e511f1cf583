"""The services of a gateway process, which all of its requests share."""

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
from orchestrator.gateway.agent_directory import AgentDirectory, WorkerCensus
from orchestrator.gateway.conversations.records import ConversationStore
from orchestrator.gateway.http.failed_auth_limiter import FailedAuthLimiter
from orchestrator.gateway.openai.item_reader import Positions
from orchestrator.gateway.scripts import Scripts
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.auditor import Auditor
from orchestrator.gateway.tenants.concurrency import TenantConcurrency
from orchestrator.gateway.tenants.keys import KeyStore
from orchestrator.gateway.tenants.ledger import Ledger
from orchestrator.gateway.tenants.rate_limit import RateLimiter
from orchestrator.gateway.tenants.stream_slots import StreamSlots

T = TypeVar("T")

THREADS: Final = 4
"""For the producer's short calls. Each thread uses at most one connection to Redis."""

CONNECTIONS: Final = 8
"""To Redis, for short commands on the event loop."""

ACTIVE_REQUESTS: Final = 8
"""Requests of one tenant that are worked on at the same time. More would only make the requests of
other tenants wait for the event loop. Requests that stream or wait for a turn do not count."""


class Gateway:
    """The producer, the follower, keys, limits and stores. Each connects when first used."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Create the services.

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
        self.active_requests = TenantConcurrency(ACTIVE_REQUESTS)
        self.stream_slots = StreamSlots(settings.gateway_streams)
        self.failed_auth = FailedAuthLimiter(settings.gateway_wrong_keys_per_minute)
        self.rate_limiter = RateLimiter(settings, self.redis, scripts)
        self.ledger = Ledger(settings, self.redis, scripts)
        self.auditor = Auditor(self.ledger, self.supervisor)
        self.positions = Positions()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="agentapi-gateway")
        self.census = WorkerCensus(settings)
        self.agents = AgentDirectory(settings, self.census)

    async def call(self, function: Callable[[Orchestrator], T]) -> T:
        """Run a short blocking call of the producer in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, self.orchestrator)

    def start(self) -> None:
        """Start the background work: following events, auditing, asking who the workers are."""
        self.follower.start()
        self.auditor.start()
        self.census.refresh()

    def stop_streams(self) -> None:
        """End every wait, and every stream with a place to resume from."""
        self.follower.stop()

    async def aclose(self) -> None:
        """Close everything: first what reads, last the connections that it uses."""
        await self.auditor.aclose()
        await self.follower.aclose()
        await self.census.aclose()
        await self.call(lambda orchestrator: orchestrator.close())
        self._threads.shutdown(wait=False)
        await self.redis.aclose()
