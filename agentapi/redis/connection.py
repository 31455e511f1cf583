"""Connections to Redis for threads, and the translation of Redis's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import parse_url
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel

from agentapi.errors import (
    AgentAPIError,
    ConfigurationError,
    LoginRefused,
    StoreFault,
    StoreUnavailable,
)
from agentapi.redis.archived import away_of, no_archive
from agentapi.redis.cluster import ClusterClient
from agentapi.settings import Settings
from agentapi.tls import is_encrypted, redis_options, why_out_of_reach
from agentapi.urls import is_cluster, without_password

if TYPE_CHECKING:
    from redis.asyncio.retry import Retry as AsyncRetry


def connect(settings: Settings, *, block: float | None = None) -> redis.Redis:
    """A pooled client of `settings.redis_url`. Connects when first used.

    A command whose answer is lost is repeated, so all writes must be idempotent.

    Args:
        settings: URL and timeout.
        block: Maximum seconds of a blocking read, for a client that uses them.

    Raises:
        ConfigurationError: The URL is not a Redis URL, or a file for TLS cannot be used.
    """
    options = connection_options(settings, block, Retry)
    try:
        if on_cluster(settings):
            nodes, account = cluster_nodes(settings)
            options |= {**account, "max_connections": CLUSTER_CONNECTIONS}
            del options["retry"], options["maint_notifications_config"]
            return ClusterClient(nodes, options, settings.redis_timeout)
        if behind_sentinel(settings):
            addresses, account = sentinels_of(settings)
            make: Any = Sentinel
            sentinel = make(addresses, sentinel_kwargs=sentinel_options(settings))
            master = sentinel.master_for(settings.sentinel_master, **account, **options)
            return cast("redis.Redis", master)
        pool = redis.BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=max(16, min(settings.concurrency, 64)),
            timeout=settings.redis_timeout,
            **options,
        )
    except ValueError:
        raise bad_url(settings) from None
    return redis.Redis.from_pool(pool)


_SENTINEL_TIMEOUTS: Final = {"socket_timeout": 1, "socket_connect_timeout": 1}
"""Seconds. A sentinel that does not answer within this time is skipped."""


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """Options of the connections to the sentinels themselves."""
    if not is_encrypted(settings.redis_url):
        return dict(_SENTINEL_TIMEOUTS)
    return {**_SENTINEL_TIMEOUTS, "ssl": True, **redis_options(settings)}


def connection_options(
    settings: Settings, block: float | None, retry: type[Retry] | type[AsyncRetry]
) -> dict[str, Any]:
    """Options of every connection, for threads and event loops alike.

    Args:
        settings: The timeout.
        block: Maximum seconds of a blocking read; None without blocking reads.
        retry: The kind of retries: for threads or for event loops.
    """
    # A lost connection is retried. A timeout is not: the caller has waited long enough.
    backoff = ExponentialWithJitterBackoff(base=0.02, cap=0.5)
    timeout = settings.redis_timeout
    return {
        # A blocking read is silent while it waits, which must not count as a timeout.
        "socket_timeout": timeout if block is None else block + timeout,
        "socket_connect_timeout": min(timeout, 3),
        "socket_keepalive": True,
        # Valkey has no such notifications. With them on, redis-py does not notice that a pooled
        # connection was closed.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "retry": retry(backoff, retries=2, supported_errors=(redis.ConnectionError,)),
        **(redis_options(settings) if is_encrypted(settings.redis_url) else {}),
    }


def behind_sentinel(settings: Settings) -> bool:
    """Whether the URL names sentinels instead of a server."""
    return settings.redis_url.startswith(("sentinel://", "sentinels://"))


def sentinels_of(settings: Settings) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The sentinels' addresses, and the user, password and database of their server.

    Raises:
        ValueError: A port or the database in the URL is not a number.
    """
    parts = [urlsplit(part) for part in settings.redis_url.split(";")]
    addresses = [(part.hostname or "127.0.0.1", part.port or 26379) for part in parts]
    account: dict[str, Any] = {"db": int(parts[-1].path.strip("/") or 0)}
    if is_encrypted(settings.redis_url):
        account["ssl"] = True
    for name in ("username", "password"):
        if value := getattr(parts[0], name):
            account[name] = unquote(value)
    return addresses, account


CLUSTER_CONNECTIONS: Final = 2**20
"""Maximum connections to one node. The number of calling threads is the actual limit."""


def on_cluster(settings: Settings) -> bool:
    """Whether the URL names nodes of a cluster."""
    return is_cluster(settings.redis_url)


def cluster_nodes(settings: Settings) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The addresses of the nodes in the URL, and its options for their connections.

    Raises:
        ValueError: A port is not a number.
    """
    urls = [part.replace("+cluster", "", 1) for part in settings.redis_url.split(";")]
    parts = [urlsplit(url) for url in urls]
    parse: Any = parse_url
    options = dict(parse(urls[0]))
    for name in ("host", "port", "db", "connection_class"):
        options.pop(name, None)
    if parts[0].scheme == "rediss":
        options["ssl"] = True
    return [(part.hostname or "127.0.0.1", part.port or 6379) for part in parts], options


def bad_url(settings: Settings) -> ConfigurationError:
    """The error for an unreadable URL. Python's own error may quote a part of the password."""
    return ConfigurationError(
        f"AGENTAPI_REDIS_URL is {without_password(settings.redis_url)!r}, which cannot be read: "
        "expected a URL such as redis://127.0.0.1:6379/0, rediss://… for TLS, "
        "sentinel://one:26379;sentinel://two:26379/0, or "
        "redis+cluster://one:6379;redis+cluster://two:6379"
    )


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Translate errors of the Redis client to errors of this project.

    Args:
        url: The URL for the message, which shows it without the password.

    Raises:
        StoreUnavailable: Redis cannot be reached or cannot write now; the same call may succeed
            later.
        LoginRefused: Redis refuses the user or password.
        StoreFault: Redis refuses the command itself.
    """
    try:
        yield
    except RedisError as error:
        raise translated(error, url) from error
    except RedisClusterException as error:
        # The client for event loops raises it if it cannot reach any node.
        raise translated(redis.ConnectionError(str(error)), url) from error


def translated(error: RedisError, url: str) -> AgentAPIError:
    """This project's error for an error of the Redis client; see `translate_errors`."""
    return _translated(error, without_password(url))


_LOGIN: Final = (
    AuthenticationError,
    AuthorizationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
)

_PASSING: Final = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "NOSCRIPT"}
    | {"OOM", "READONLY", "TRYAGAIN", "UNBLOCKED"}
)
"""First words of Redis errors that are transient."""

_MAX_REASON: Final = 300


def _translated(error: RedisError, address: str) -> AgentAPIError:
    """The error of this project that tells the caller what to do."""
    # Before the test for lost connections: redis-py derives refused logins from ConnectionError.
    if isinstance(error, _LOGIN):
        return LoginRefused(
            f"Redis at {address} refuses the user or password: correct AGENTAPI_REDIS_URL"
        )
    if isinstance(error, OutOfMemoryError):
        return StoreUnavailable(
            f"Redis at {address} is out of memory and refuses writes: raise its maxmemory; nothing "
            "was changed"
        )
    if away_of(error) is not None:
        return no_archive()
    if isinstance(error, BusyLoadingError) or _begins(error) in _PASSING:
        return StoreUnavailable(
            f"Redis at {address} does not accept commands now (it is a replica, is still loading, "
            f"or its disk is full): {_reason(error)}"
        )
    # A connection without TLS to a TLS port reads an invalid response.
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, InvalidResponse)):
        why = why_out_of_reach(error, address, "AGENTAPI_REDIS_URL")
        return StoreUnavailable(f"Redis at {address} is out of reach: {why}")
    return StoreFault(
        f"Redis at {address} refuses a command: {_reason(error)}; repeating it does not help: "
        "check what is stored under the key, or report this bug"
    )


_BY_TYPE: Final = (ReadOnlyError, ClusterDownError, TryAgainError, NoScriptError, AskError)


def _begins(error: RedisError) -> str:
    """The first word of Redis's error. For some errors redis-py removes it and uses a type
    instead."""
    if isinstance(error, _BY_TYPE):
        return "READONLY"
    return _reason(error).partition(" ")[0]


def _reason(error: RedisError) -> str:
    """Redis's error text. In a pipeline redis-py puts the command and its arguments before it,
    which may contain users' text."""
    return str(error).rpartition(" of pipeline caused error: ")[2][:_MAX_REASON]
