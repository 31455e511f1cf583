"""Connections to Redis, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel

from agentapi.errors import ConfigurationError, StoreUnavailable
from agentapi.settings import Settings, without_password


def connect(settings: Settings, *, block: float | None = None) -> redis.Redis:
    """A pooled client of `settings.redis_url`. Connects when first used.

    A command whose answer is lost is repeated, so all writes must be idempotent.

    Args:
        settings: URL and timeout.
        block: For a client that waits in blocking reads: the longest such wait in seconds.

    Raises:
        ConfigurationError: The URL is no Redis URL.
    """
    timeout = settings.redis_timeout
    options: dict[str, Any] = {
        "socket_timeout": timeout if block is None else block + timeout,
        "socket_connect_timeout": min(timeout, 3),
        "socket_keepalive": True,
        # A cut connection is worth another try at once; who waited the whole timeout for an
        # answer is told so.
        "retry": Retry(
            ExponentialWithJitterBackoff(base=0.02, cap=0.5),
            retries=2,
            supported_errors=(redis.ConnectionError,),
        ),
        # Valkey has no such notifications, and with them on redis-py does not notice that a
        # pooled connection was closed.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    try:
        if settings.redis_url.startswith("sentinel://"):
            return _master(settings, options)
        pool = redis.BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=max(8, min(settings.concurrency, 64)),
            timeout=timeout,
            **options,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"AGENTAPI_REDIS_URL is {without_password(settings.redis_url)!r}: {error}; "
            "expected a URL such as redis://127.0.0.1:6379/0, or "
            "sentinel://one:26379;sentinel://two:26379/0"
        ) from error
    return redis.Redis.from_pool(pool)


def _master(settings: Settings, options: dict[str, Any]) -> redis.Redis:
    """A client of the server that the sentinels name, wherever it moves."""
    parts = [urlsplit(part) for part in settings.redis_url.split(";")]
    sentinels = [(part.hostname or "127.0.0.1", part.port or 26379) for part in parts]
    first, last = parts[0], parts[-1]
    for name in ("username", "password"):
        if value := getattr(first, name):
            options[name] = unquote(value)
    timeouts = {"socket_timeout": 1, "socket_connect_timeout": 1}
    options["db"] = int(last.path.strip("/") or 0)
    make: Any = Sentinel
    found = make(sentinels, sentinel_kwargs=timeouts)
    return cast("redis.Redis", found.master_for(settings.sentinel_master, **options))


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Raise what Redis's client raises as errors of this project.

    Args:
        url: For the message; its password is left out.

    Raises:
        StoreUnavailable: Redis is out of reach or cannot write now.
        ConfigurationError: Redis refuses the user or password.
    """
    address = without_password(url)
    try:
        yield
    except AuthenticationError as error:
        raise ConfigurationError(
            f"Redis at {address} refuses the user or password: correct AGENTAPI_REDIS_URL"
        ) from error
    except OutOfMemoryError as error:
        raise StoreUnavailable(
            f"Redis at {address} is out of memory and refuses to write: raise its maxmemory; "
            "nothing was changed"
        ) from error
    except (ReadOnlyError, BusyLoadingError) as error:
        raise StoreUnavailable(
            f"Redis at {address} does not take writes now (replica or still loading): {error}"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis at {address} is out of reach: {type(error).__name__}; is it running, and is "
            "AGENTAPI_REDIS_URL right? Repeating the call with the same idempotency_key is safe"
        ) from error
    except RedisError as error:
        raise StoreUnavailable(f"Redis at {address} failed: {error}") from error
