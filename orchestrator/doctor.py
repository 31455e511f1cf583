"""What is wrong with an installation, and what to do about it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import redis
from kombu.exceptions import OperationalError

from agentapi import Settings
from agentapi.errors import AgentAPIError
from agentapi.settings import without_password
from agentapi.stores.connection import connect, translate_errors
from orchestrator.broker import broker_unavailable, producer_app

PROVIDER_KEYS: Final = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")

_CLOCK_TOLERANCE = 2.0


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check found, and what to do about it."""

    level: Level
    check: str
    what: str
    advice: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Check everything; never raises for a fault it finds."""
    return [*_redis(settings), *_workers(settings), *_keys()]


def _redis(settings: Settings) -> Iterator[Finding]:
    client = connect(settings)
    try:
        with translate_errors(settings.redis_url):
            server = client.info("server")
            seconds, micros = client.time()
            here = time.time()
            persistence = client.info("persistence")
            memory = client.info("memory")
    except AgentAPIError as error:
        yield Finding(
            level=Level.FAIL,
            check="Redis",
            what=str(error),
            advice="Start it, or set AGENTAPI_REDIS_URL.",
        )
        return
    finally:
        client.close()
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server["redis_version"])
    address = without_password(settings.redis_url)
    yield Finding(level=Level.OK, check="Redis", what=f"{name} {version} at {address}")
    yield persistence_finding(persistence)
    yield eviction_finding(str(memory.get("maxmemory_policy")), int(memory.get("maxmemory", 0)))
    yield clock_finding(here - (seconds + micros / 1e6))


def persistence_finding(info: dict[str, Any]) -> Finding:
    """Does Redis keep accepted turns over a restart?"""
    if info.get("aof_enabled"):
        return Finding(level=Level.OK, check="persistence", what="append-only file is on")
    return Finding(
        level=Level.WARN,
        check="persistence",
        what="no append-only file: a restart of Redis loses accepted turns",
        advice="Set appendonly yes and appendfsync everysec (or always).",
    )


def eviction_finding(policy: str, limit: int) -> Finding:
    """Does Redis throw conversations away when it is full?"""
    if policy == "noeviction":
        limited = f"maxmemory {limit} bytes" if limit else "no maxmemory"
        return Finding(level=Level.OK, check="eviction", what=f"noeviction, {limited}")
    return Finding(
        level=Level.WARN if limit == 0 else Level.FAIL,
        check="eviction",
        what=f"maxmemory-policy is {policy}: a full Redis drops turns and histories",
        advice="Set maxmemory-policy noeviction.",
    )


def clock_finding(ahead: float) -> Finding:
    """Does this machine's clock agree with Redis's?"""
    if abs(ahead) <= _CLOCK_TOLERANCE:
        return Finding(
            level=Level.OK, check="clock", what=f"{abs(ahead) * 1000:.0f} ms off Redis's"
        )
    return Finding(
        level=Level.WARN,
        check="clock",
        what=f"this clock is {ahead:+.1f} s off Redis's; turns use Redis's, but Celery's broker "
        "counts redelivery by the workers'",
        advice="Synchronise the clocks (NTP).",
    )


def _workers(settings: Settings) -> Iterator[Finding]:
    app: Any = producer_app(settings)
    try:
        try:
            app.connection_for_write().ensure_connection(
                max_retries=1, timeout=settings.redis_timeout
            )
            answers = app.control.broadcast("agents", reply=True, timeout=1.5)
        except (OperationalError, OSError, redis.RedisError) as error:
            yield Finding(
                level=Level.FAIL,
                check="broker",
                what=str(broker_unavailable(settings, error)),
                advice="Start it, or set AGENTAPI_BROKER_URL.",
            )
            return
    finally:
        app.close()
    yield Finding(
        level=Level.OK, check="broker", what=f"reachable at {without_password(settings.broker_url)}"
    )
    known = {name: answer["agents"] for reply in answers for name, answer in reply.items()}
    yield from worker_findings(known)


def worker_findings(known: dict[str, list[str]]) -> Iterator[Finding]:
    """Are there workers, and do all know the same agents?

    Args:
        known: The names of its agents, by worker.
    """
    if not known:
        yield Finding(
            level=Level.FAIL,
            check="workers",
            what="no worker answers: turns are accepted and wait",
            advice="Start some: celery -A workers worker",
        )
        return
    yield Finding(level=Level.OK, check="workers", what=", ".join(sorted(known)))
    everywhere = set.intersection(*(set(names) for names in known.values()))
    somewhere = set().union(*known.values())
    if not somewhere:
        yield Finding(
            level=Level.FAIL,
            check="agents",
            what="the workers know no agents: every turn fails",
            advice="Set AGENTAPI_AGENTS to your modules where the workers start.",
        )
    elif missing := somewhere - everywhere:
        yield Finding(
            level=Level.WARN,
            check="agents",
            what=f"not every worker knows {', '.join(sorted(missing))}",
            advice="Start all workers with the same AGENTAPI_AGENTS and release.",
        )
    else:
        yield Finding(level=Level.OK, check="agents", what=", ".join(sorted(everywhere)))


def _keys() -> Iterator[Finding]:
    found = [name for name in PROVIDER_KEYS if os.environ.get(name)]
    if found:
        yield Finding(level=Level.OK, check="keys", what=f"{', '.join(found)} set here")
    else:
        yield Finding(
            level=Level.WARN,
            check="keys",
            what="no model provider's key is set here; agents can use 'offline' only",
            advice=f"Set one of {', '.join(PROVIDER_KEYS)} where the workers start.",
        )
