"""The services of a gateway process, which all of its requests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from agentapi.errors import ConfigurationError
from agentapi.redis.aio import connect
from agentapi.stores import RedisTurnStore
from agentapi.supervision import Supervisor, TaskService
from agentapi.tracing import set_up
from orchestrator.blocking import BlockingCalls
from orchestrator.client import Orchestrator
from orchestrator.ends import EndsBell
from orchestrator.events.async_follower import AsyncFollower
from orchestrator.events.follower import PAGE, EventFollower
from orchestrator.gateway.agent_directory import AgentDirectory, WorkerCensus
from orchestrator.gateway.console.fleet_watch import FleetWatch
from orchestrator.gateway.console.sessions import Sessions
from orchestrator.gateway.console.shared import SharedReads
from orchestrator.gateway.conversations.records import Conversations
from orchestrator.gateway.http.failed_auth_limiter import FailedAuthLimiter
from orchestrator.gateway.measuring import measure_lag, metrics_server
from orchestrator.gateway.openai.item_reader import Positions
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.auditor import Auditor
from orchestrator.gateway.tenants.concurrency import TenantConcurrency
from orchestrator.gateway.tenants.keys import KeyStore
from orchestrator.gateway.tenants.ledger import Ledger
from orchestrator.gateway.tenants.rate_limit import RateLimiter
from orchestrator.gateway.tenants.stored_chats import StoredChats
from orchestrator.gateway.tenants.stream_slots import StreamSlots

T = TypeVar("T")

THREADS: Final = 4
"""Threads for the producer's short calls. Each thread uses at most one connection to Redis."""

CONNECTIONS: Final = 8
"""Connections to Redis for short commands on the event loop."""

ACTIVE_REQUESTS: Final = 8
"""Maximum requests of one tenant that are processed at the same time. More would only make other
tenants' requests wait for the event loop. Requests that stream or wait for a turn do not count."""


class Gateway:
    """The producer, the follower, keys, limits and stores of a gateway. Each connects when first
    used."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Create the services.

        Raises:
            ConfigurationError: A setting is not valid, or eager mode is on.
        """
        if settings.eager:
            raise ConfigurationError(
                "AGENTAPI_EAGER is set, but the gateway needs Redis and workers: unset it"
            )
        self.settings = settings
        # Set up before the producer's, which would report another service name.
        set_up(settings.traces, content=settings.trace_content, service="agentapi-gateway")
        self.orchestrator = Orchestrator(settings)
        self.redis = connect(settings, connections=CONNECTIONS)
        store = self.orchestrator.store
        archiving = store.archiving if isinstance(store, RedisTurnStore) else None
        self.conversations = Conversations(
            settings, self.redis, archiving.bring_back if archiving else None
        )
        # With the default `fatal`: a gateway holds no state, so restarting the process is the best
        # fix.
        self.supervisor = Supervisor()
        # Replaces the producer's own follower, because this process may be ended and restarted if
        # events can no longer be read.
        limit = settings.gateway_stream_buffer
        events = EventFollower(self.orchestrator.store, self.supervisor, min(PAGE, limit))
        self.orchestrator.follower = events
        self._call = BlockingCalls(THREADS, "agentapi-gateway")
        self.follower = AsyncFollower(events, self.orchestrator.store, self._call, limit)
        self.bell = EndsBell(self.orchestrator.store.lists)
        self.stopping = False
        self.keys = KeyStore(settings, self.redis)
        self.sessions = Sessions(settings, self.redis, self.keys)
        self.shared = SharedReads()
        self.active_requests = TenantConcurrency(ACTIVE_REQUESTS)
        self.stream_slots = StreamSlots(settings.gateway_streams)
        self.failed_auth = FailedAuthLimiter(settings.gateway_wrong_keys_per_minute)
        self.rate_limiter = RateLimiter(settings, self.redis)
        self.ledger = Ledger(settings, self.redis)
        self.stored_chats = StoredChats(settings, self.redis)
        self.auditor = Auditor(self.ledger, self.supervisor)
        self.positions = Positions()
        self.census = WorkerCensus(settings)
        self.fleet = FleetWatch(settings, self.orchestrator.store, self.supervisor)
        self.agents = AgentDirectory(settings, self.census)
        self.metrics = metrics_server(settings, self.orchestrator.store, self.stream_slots.open)
        self._lag: TaskService | None = None

    async def call(self, function: Callable[[Orchestrator], T]) -> T:
        """Run a short blocking call of the producer in a thread."""
        return await self._call(partial(function, self.orchestrator))

    def start(self) -> None:
        """Start the background work: following events, auditing, asking for the workers."""
        self.follower.start()
        self.auditor.start()
        self.census.refresh()
        if self.settings.gateway_console:
            self.fleet.start()
        if self.metrics is not None:
            self.metrics.start()
            self._lag = self.supervisor.task("agentapi-gateway-lag", measure_lag)
            self._lag.start()

    def stop_streams(self) -> None:
        """End all waits, and all streams with a position to resume from."""
        self.stopping = True
        self.follower.stop()

    async def aclose(self) -> None:
        """Close everything: first the readers, last the connections that they use."""
        if self._lag is not None:
            await self._lag.stop()
        if self.metrics is not None:
            await self._call(self.metrics.stop)
        # Writes through `redis`, which is closed last.
        await self.auditor.aclose()
        self.follower.stop()
        await self.census.aclose()
        await self.fleet.aclose()
        # In a thread, before the threads end, because it waits for the follower's read to end.
        await self.call(lambda orchestrator: orchestrator.close())
        self._call.close()
        self.bell.close()
        await self.redis.aclose()
