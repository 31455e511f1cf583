"""Redis on an event loop: connections and scripts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel

from agentapi.errors import ArchiveLost
from agentapi.metrics import recorder
from agentapi.metrics.catalog import SCRIPT_DURATION
from agentapi.redis.archived import MAX_RETURNS, Absent, away_of
from agentapi.redis.connection import (
    CLUSTER_CONNECTIONS,
    bad_url,
    behind_sentinel,
    cluster_nodes,
    connection_options,
    on_cluster,
    sentinel_options,
    sentinels_of,
    translate_errors,
)
from agentapi.redis.routes import guard_of
from agentapi.redis.scripts import ScriptRun, ScriptSet
from agentapi.settings import Settings

T = TypeVar("T")

QUEUE_TIME: Final = 30.0
"""Seconds that a command may wait for a free connection. Such a wait is caused by our own load and
says nothing about Redis."""


def connect(
    settings: Settings, *, connections: int, block: float | None = None
) -> redis.asyncio.Redis:
    """A pooled client of `settings.redis_url`. Connects when first used.

    Args:
        settings: URL and timeout.
        connections: Maximum number of connections; a command that needs one more waits.
        block: Maximum seconds of a blocking read, for a client that uses them.

    Raises:
        ConfigurationError: The URL is not a Redis URL, or a file for TLS cannot be used.
    """
    options = connection_options(settings, block, Retry)
    try:
        if on_cluster(settings):
            return cast("redis.asyncio.Redis", _cluster(settings, options))
        if behind_sentinel(settings):
            addresses, account = sentinels_of(settings)
            make: Any = Sentinel
            sentinel = make(addresses, sentinel_kwargs=sentinel_options(settings))
            master = sentinel.master_for(settings.sentinel_master, **account, **options)
            return cast("redis.asyncio.Redis", master)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=connections,
            timeout=QUEUE_TIME,
            **options,
        )
    except ValueError:
        raise bad_url(settings) from None
    return redis.asyncio.Redis.from_pool(pool)


def _cluster(settings: Settings, options: dict[str, Any]) -> RedisCluster:
    nodes, account = cluster_nodes(settings)
    node: Any = ClusterNode
    return RedisCluster(
        startup_nodes=[node(host, port) for host, port in nodes],
        require_full_coverage=False,
        max_connections=CLUSTER_CONNECTIONS,
        **{**options, **account},
    )


class AsyncScripts:
    """A set of scripts on a client for an event loop."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, scripts: ScriptSet) -> None:
        """Register the scripts. Redis loads each when it is first called.

        Args:
            settings: The URL, for errors.
            client: A pooled client.
            scripts: What to register.
        """
        self._url = settings.redis_url
        self._client = client
        self._on_cluster = isinstance(client, RedisCluster)
        text = scripts.cluster_source if self._on_cluster else scripts.source
        self._scripts = {name: client.register_script(text(name)) for name in scripts.names}
        self.bring_back: Callable[[Absent], object] | None = None
        """Brings records back from the archive. It is called in a thread."""

    async def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script. If it needs a record that is in the archive, bring that back first.

        Raises:
            StoreUnavailable: Redis cannot be reached.
            ArchiveUnavailable: The archive cannot be reached.
        """
        with translate_errors(self._url):
            for _ in range(MAX_RETURNS if self.bring_back else 0):
                try:
                    return await self._call(name, keys, args)
                except redis.ResponseError as error:
                    away = away_of(error)
                    if away is None or self.bring_back is None:
                        raise
                await asyncio.to_thread(self.bring_back, away)
            return await self._call(name, keys, args)

    async def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        metrics = recorder()
        began = time.perf_counter() if metrics.on else 0.0
        guards = [guard_of(keys[0])] if self._on_cluster else []
        answer = await self._scripts[name](keys=[*keys, *guards], args=args)
        if metrics.on:
            metrics.observe(SCRIPT_DURATION, time.perf_counter() - began, name)
        return answer

    async def run(self, run: ScriptRun[T]) -> T:
        """Run a script and read its answer; raises like `call`."""
        try:
            answer = await self.call(run.name, run.keys, run.args)
        except ArchiveLost:
            if run.if_lost is None:
                raise
            answer = await self.call(run.name, run.keys, run.if_lost)
        return run.read(answer)
