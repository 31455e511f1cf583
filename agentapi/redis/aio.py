"""The gateway's connections to Redis on the event loop."""

from __future__ import annotations

from typing import Any, Final, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff

from agentapi import Settings
from agentapi.redis.connection import (
    SENTINEL_TIMEOUTS,
    bad_url,
    behind_sentinel,
    connection_options,
    sentinels_of,
)

QUEUE_TIME: Final = 30.0
"""Seconds that a command may wait for one of our own connections: that is our load, and says
nothing of Redis."""


def connect(
    settings: Settings, *, connections: int, block: float | None = None
) -> redis.asyncio.Redis:
    """A pooled client of `settings.redis_url`. Connects when first used.

    Args:
        settings: URL and timeout.
        connections: At most so many; who needs one more waits.
        block: For a client that waits in blocking reads: the longest such wait in seconds.

    Raises:
        ConfigurationError: The URL is no Redis URL.
    """
    backoff = ExponentialWithJitterBackoff(base=0.02, cap=0.5)
    retry = Retry(backoff, retries=2, supported_errors=(redis.ConnectionError,))
    options = {**connection_options(settings, block), "retry": retry}
    try:
        if behind_sentinel(settings):
            addresses, account = sentinels_of(settings)
            make: Any = Sentinel
            sentinel = make(addresses, sentinel_kwargs=SENTINEL_TIMEOUTS)
            master = sentinel.master_for(settings.sentinel_master, **account, **options)
            return cast("redis.asyncio.Redis", master)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=connections,
            timeout=QUEUE_TIME,
            **options,
        )
    except ValueError as error:
        raise bad_url(settings, error) from error
    return redis.asyncio.Redis.from_pool(pool)
