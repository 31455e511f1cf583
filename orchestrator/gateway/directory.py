"""Which agents there are: each is a model of OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from kombu.exceptions import OperationalError

from agentapi import Settings
from agentapi.agents.registry import is_internal, load_agents, unknown_agent
from agentapi.errors import AgentAPIError, BrokerUnavailable
from orchestrator.broker import broker_unavailable, producer_app

FRESH: Final = 10.0
"""Seconds for which an answer of the workers is believed."""

_ANSWER_TIME: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """Who answered.

    Attributes:
        workers: The names of its agents, by worker.
        fault: Why nobody could be asked, or None.
        taken: When, by the event loop's clock.
    """

    workers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fault: BrokerUnavailable | None = None
    taken: float = float("-inf")


class WorkerCensus:
    """Asks the workers who they are, once for all who want to know."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Any = producer_app(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentapi-census")
        self._asking = asyncio.Lock()
        self._last = Census()
        self._refresh: asyncio.Task[Census] | None = None

    def refresh(self) -> None:
        """See that the answer is not old for long; nobody waits for that."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self.take())

    async def last(self) -> Census:
        """An answer, maybe an old one."""
        if not self._last.workers:
            return await self.take()
        self.refresh()
        return self._last

    async def take(self, fresh: float = FRESH) -> Census:
        """An answer that is at most `fresh` seconds old."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if self._is_old(asked, fresh):
            async with self._asking:
                if self._is_old(asked, fresh):
                    workers, fault = await loop.run_in_executor(self._thread, self._ask)
                    self._last = Census(workers=workers, fault=fault, taken=loop.time())
        return self._last

    def _is_old(self, now: float, fresh: float) -> bool:
        # Workers that are just starting are not to be missed for long.
        return self._last.taken < now - (fresh if self._last.workers else min(fresh, 1.0))

    def _ask(self) -> tuple[dict[str, tuple[str, ...]], BrokerUnavailable | None]:
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=self._settings.redis_timeout)
                answers = self._broadcast(connection) or self._broadcast(connection)
        except (OperationalError, OSError, redis.RedisError) as error:
            return {}, broker_unavailable(self._settings, error)
        return {name: _agents(said) for reply in answers for name, said in reply.items()}, None

    def _broadcast(self, connection: Any) -> list[dict[str, Any]]:
        """Ask once. A worker or a gateway that is just starting may miss that, so ask twice."""
        answers: list[dict[str, Any]] = self._app.control.broadcast(
            "agents", reply=True, timeout=_ANSWER_TIME, connection=connection
        )
        return answers

    async def aclose(self) -> None:
        """Close the connection."""
        if self._refresh is not None:
            await asyncio.gather(self._refresh, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._app.close)
        self._thread.shutdown(wait=False)


def _agents(said: object) -> tuple[str, ...]:
    """What a worker says, which may be an error, or of another release."""
    found = said.get("agents") if isinstance(said, dict) else None
    return tuple(name for name in found if isinstance(name, str)) if found else ()


class ModelDirectory:
    """The agents by name: those of `AGENTAPI_AGENTS` when it is set, else what workers say."""

    def __init__(self, settings: Settings, census: WorkerCensus) -> None:
        """Make one.

        Raises:
            AgentAPIError: A module of `AGENTAPI_AGENTS` cannot be used.
        """
        self._census = census
        self._fixed = tuple(sorted(load_agents(settings.agents))) if settings.agents else None

    async def names(self, fresh: float | None = None) -> tuple[str, ...]:
        """All names, sorted.

        Args:
            fresh: Oldest answer of the workers to believe, in seconds; any when not given.

        Raises:
            BrokerUnavailable: The workers have to be asked and cannot.
        """
        if self._fixed is not None:
            return self._fixed
        census = await (self._census.last() if fresh is None else self._census.take(fresh))
        if census.fault is not None:
            raise census.fault
        return tuple(sorted({name for names in census.workers.values() for name in names}))

    async def check(self, name: str) -> None:
        """See that there is such an agent.

        When no worker answers, every name is taken: the turn waits for a worker, which knows.

        Raises:
            UnknownAgent: There is none, or only the runtime itself uses it.
        """
        if is_internal(name):
            raise unknown_agent(name, ())
        try:
            known = await self.names()
            if known and name not in known:
                known = await self.names(fresh=1.0)
        except AgentAPIError:
            return
        if known and name not in known:
            raise unknown_agent(name, known)
