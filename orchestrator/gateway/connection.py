"""The gateway's connections to Redis on the event loop."""

from __future__ import annotations

from typing import Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.maint_notifications import MaintNotificationsConfig

from agentapi import Settings
from agentapi.errors import ConfigurationError
from agentapi.settings import without_password

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
    timeout = settings.redis_timeout
    try:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=connections,
            timeout=QUEUE_TIME,
            socket_timeout=timeout if block is None else block + timeout,
            socket_connect_timeout=min(timeout, 3),
            socket_keepalive=True,
            retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries=2),
            # As in agentapi.stores.connection: a closed pooled connection must be noticed.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError as error:
        raise ConfigurationError(
            f"AGENTAPI_REDIS_URL is {without_password(settings.redis_url)!r}: {error}; "
            "expected a URL such as redis://127.0.0.1:6379/0"
        ) from error
    return redis.asyncio.Redis.from_pool(pool)
