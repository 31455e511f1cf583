"""Checks of Redis: does it persist accepted turns, does it have room, and do the clocks agree?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import redis

from agentapi.checks.findings import Finding, fail, ok, warn
from agentapi.decoding.records import PROTOCOL
from agentapi.redis.cluster import nodes_of
from agentapi.redis.connection import connect, translate_errors
from agentapi.redis.keys import PROTOCOL_KEY, QUEUES_KEY
from agentapi.settings import Settings
from agentapi.urls import without_password

CLOCK_TOLERANCE: Final = 2.0
"""Seconds by which two clocks may differ before it is reported."""

FULL: Final = 0.95
NEARLY_FULL: Final = 0.8
"""Shares of the memory in use."""

_SYNCHRONISE: Final = "Synchronise the clocks, for example with NTP."


@dataclass(frozen=True, kw_only=True, slots=True)
class RedisFacts:
    """What Redis reports about itself.

    Attributes:
        address: Its URL without the password.
        product: Redis or Valkey, with the version.
        server: Identifies the server independently of its address.
        ahead: Seconds by which this machine's clock is ahead of Redis's.
        persistence: The section "persistence" of INFO.
        memory: The section "memory" of INFO.
        queues: The fleet's number of queues; None if no worker has started yet.
        protocol: The version of the turn protocol that the fleet writes, as it is stored; None if
            no worker has started yet.
    """

    address: str
    product: str
    server: str
    ahead: float
    persistence: Mapping[str, Any]
    memory: Mapping[str, Any]
    queues: int | None
    protocol: str | None = None


def ask_redis(settings: Settings) -> RedisFacts:
    """Ask Redis over a separate connection.

    Raises:
        StoreUnavailable: Redis cannot be reached, or refuses the login.
        StoreFault: Redis refuses a command.
        ConfigurationError: The URL is not a Redis URL.
    """
    client = connect(settings)
    try:
        with translate_errors(settings.redis_url):
            return _ask(client, settings)
    finally:
        client.close()
        client.connection_pool.disconnect()


def _ask(client: redis.Redis, settings: Settings) -> RedisFacts:
    server: Any = client.info("server")
    before = time.time()
    seconds, micros = client.time()
    # Redis read its clock at some time between the two.
    here = (before + time.time()) / 2
    queues = cast("bytes | None", client.hget(QUEUES_KEY, "queues"))
    protocol = cast("bytes | None", client.get(PROTOCOL_KEY))
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server["redis_version"])
    database = client.connection_pool.connection_kwargs.get("db", 0)
    return RedisFacts(
        address=without_password(settings.redis_url),
        product=f"{name} {version}",
        server=f"{server.get('run_id', '')}/{database}",
        ahead=here - (seconds + micros / 1e6),
        # In a cluster, the shard with the weakest persistence.
        persistence=min(
            (node.info("persistence") for node in nodes_of(client)),
            key=lambda info: bool(info.get("aof_enabled")),
        ),
        memory=max((node.info("memory") for node in nodes_of(client)), key=_need),
        queues=int(queues) if queues is not None and queues.isdigit() else None,
        protocol=protocol.decode(errors="replace") if protocol is not None else None,
    )


def _need(memory: Mapping[str, Any]) -> tuple[bool, float]:
    """How urgently a server needs more memory."""
    limit = int(memory.get("maxmemory", 0)) or int(memory.get("total_system_memory", 0)) or 1
    evicts = memory.get("maxmemory_policy") != "noeviction"
    return evicts, int(memory.get("used_memory", 0)) / limit


def redis_findings(facts: RedisFacts) -> Iterator[Finding]:
    """All findings about Redis."""
    yield ok("redis.reachable", f"{facts.product} at {facts.address}")
    yield from protocol_findings(facts.protocol)
    yield persistence_finding(facts.persistence)
    yield eviction_finding(facts.memory)
    yield memory_finding(facts.memory)


def protocol_findings(stored: str | None) -> Iterator[Finding]:
    """Can this release read what the fleet writes?

    Args:
        stored: See `RedisFacts.protocol`.
    """
    if stored is not None and not (stored.isdigit() and int(stored) <= PROTOCOL):
        yield fail(
            "protocol.unknown",
            f"the fleet writes version {stored[:20]!r} of the turn protocol, and this release of "
            f"agentapi reads versions up to {PROTOCOL}",
            "Upgrade agentapi here.",
        )


def persistence_finding(info: Mapping[str, Any]) -> Finding:
    """Does Redis keep accepted turns when it restarts?"""
    if info.get("aof_enabled"):
        return ok("persistence.on", "append-only file is on")
    return warn(
        "persistence.off",
        "there is no append-only file: accepted turns are lost when Redis restarts",
        "Set appendonly yes and appendfsync everysec (or always).",
    )


def eviction_finding(info: Mapping[str, Any]) -> Finding:
    """Does Redis delete conversations when it is full?"""
    policy, limit = str(info.get("maxmemory_policy")), int(info.get("maxmemory", 0))
    if policy == "noeviction":
        return ok("eviction.off", "noeviction")
    found = warn if limit == 0 else fail
    return found(
        "eviction.on",
        f"maxmemory-policy is {policy}: Redis deletes turns and histories when it is full",
        "Set maxmemory-policy noeviction.",
    )


def memory_finding(info: Mapping[str, Any]) -> Finding:
    """Does Redis have room for more turns?"""
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    what = "maxmemory" if limit else "the machine's memory"
    limit = limit or int(info.get("total_system_memory", 0))
    if not limit:
        return ok("memory.redis", f"Redis uses {megabytes(used)}")
    share = used / limit
    text = f"Redis uses {megabytes(used)}, {share:.0%} of {what} ({megabytes(limit)})"
    if share < NEARLY_FULL:
        return ok("memory.redis", text)
    found = warn if share < FULL else fail
    return found(
        "memory.redis_full",
        f"{text}: when it is full, no turns are accepted",
        "Give Redis more memory, or set AGENTAPI_MEMORY_TTL to delete idle conversations.",
    )


def clock_finding(ahead: float, whose: str = "this machine's clock") -> Finding:
    """Does a machine's clock agree with Redis's?"""
    if abs(ahead) <= CLOCK_TOLERANCE:
        return ok("clock.agrees", f"{whose} is {abs(ahead) * 1000:.0f} ms off Redis's clock")
    return warn(
        "clock.off",
        f"{whose} is {ahead:+.1f} s off Redis's clock, which turns use: times in logs and in "
        "Flower are off by the same amount",
        _SYNCHRONISE,
    )


def megabytes(size: float) -> str:
    """A size in bytes for people."""
    return f"{size / 1e6:,.0f} MB"
