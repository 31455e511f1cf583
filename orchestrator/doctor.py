"""Checks an installation: asks Redis, the broker and the workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any, Final

import redis
from kombu.exceptions import OperationalError

from agentapi import Settings
from agentapi.broker.wire import queue_names
from agentapi.errors import AgentAPIError
from agentapi.redis.connection import connect, translate_errors
from agentapi.settings import without_password
from agentapi.stores import RedisTurnStore
from agentapi.supervision import ServiceStatus
from orchestrator.broker import broker_unavailable, producer_app
from orchestrator.findings import (
    Finding,
    Level,
    WorkerReport,
    clock_finding,
    eviction_finding,
    persistence_finding,
    queue_findings,
    service_findings,
    sweep_finding,
    worker_clock_findings,
    worker_findings,
)

PROVIDER_KEYS: Final = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")

_ANSWER_TIMEOUT: Final = 1.5
"""Seconds to wait for the workers' answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _RedisReport:
    """What Redis answered.

    Attributes:
        findings: The findings about Redis.
        ahead: Seconds by which this machine's clock is ahead of Redis's; None if Redis is away.
        since_sweep: See `TurnStore.since_sweep`.
    """

    findings: list[Finding]
    ahead: float | None = None
    since_sweep: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fleet:
    """What the workers answered.

    Attributes:
        agents: The names of each worker's agents.
        reports: Each worker's report; workers of an older release have none.
        asked: When the workers were asked for their reports, by this machine's clock.
        answered: When the last of them had answered.
    """

    agents: Mapping[str, list[str]]
    reports: Mapping[str, WorkerReport]
    asked: float
    answered: float


def examine(settings: Settings) -> list[Finding]:
    """Check everything. Faults are returned as findings, never raised."""
    stored = _redis(settings)
    return [*stored.findings, *_workers(settings, stored), *_keys()]


def _redis(settings: Settings) -> _RedisReport:
    client = connect(settings)
    try:
        with translate_errors(settings.redis_url), closing(RedisTurnStore(settings)) as store:
            server = client.info("server")
            seconds, micros = client.time()
            # Directly after Redis's answer, so that the other commands' time is not taken for a
            # skew.
            here = time.time()
            persistence = client.info("persistence")
            memory = client.info("memory")
            since_sweep = store.since_sweep()
    except AgentAPIError as error:
        away = Finding(
            level=Level.FAIL,
            check="Redis",
            what=str(error),
            advice="Start it, or set AGENTAPI_REDIS_URL.",
        )
        return _RedisReport(findings=[away])
    finally:
        client.close()
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server["redis_version"])
    address = without_password(settings.redis_url)
    ahead = here - (seconds + micros / 1e6)
    found = [
        Finding(level=Level.OK, check="Redis", what=f"{name} {version} at {address}"),
        persistence_finding(persistence),
        eviction_finding(str(memory.get("maxmemory_policy")), int(memory.get("maxmemory", 0))),
        clock_finding(ahead),
    ]
    return _RedisReport(findings=found, ahead=ahead, since_sweep=since_sweep)


def _workers(settings: Settings, stored: _RedisReport) -> Iterator[Finding]:
    try:
        fleet = _ask(settings)
    except (OperationalError, OSError, redis.RedisError) as error:
        yield Finding(
            level=Level.FAIL,
            check="broker",
            what=str(broker_unavailable(settings, error)),
            advice="Start it, or set AGENTAPI_BROKER_URL.",
        )
        return
    yield Finding(
        level=Level.OK, check="broker", what=f"reachable at {without_password(settings.broker_url)}"
    )
    yield from worker_findings(dict(fleet.agents))
    if not fleet.agents:
        return
    yield from queue_findings(fleet.reports, queue_names(settings.queues))
    yield from service_findings(fleet.reports)
    if stored.ahead is not None:
        yield sweep_finding(stored.since_sweep, settings.sweep_interval)
        yield from worker_clock_findings(fleet.reports, fleet.asked, fleet.answered, stored.ahead)


def _ask(settings: Settings) -> _Fleet:
    app: Any = producer_app(settings)
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=settings.redis_timeout)
        agents = _answers(app, "agents")
        # Asked separately, so that this pair of times encloses only the answers with a clock.
        asked = time.time()
        services = _answers(app, "services")
        answered = time.time()
    finally:
        app.close()
    return _Fleet(
        agents={worker: answer["agents"] for worker, answer in agents.items()},
        # A worker of an older release does not know the command.
        reports={
            worker: _report(answer) for worker, answer in services.items() if "clock" in answer
        },
        asked=asked,
        answered=answered,
    )


def _answers(app: Any, command: str) -> dict[str, dict[str, Any]]:
    replies = app.control.broadcast(command, reply=True, timeout=_ANSWER_TIMEOUT)
    return {worker: answer for reply in replies or () for worker, answer in reply.items()}


def _report(answer: Mapping[str, Any]) -> WorkerReport:
    return WorkerReport(
        # A worker of a newer release may send more fields.
        services=[
            ServiceStatus(**{field.name: service[field.name] for field in fields(ServiceStatus)})
            for service in answer["services"]
        ],
        queues=answer["queues"],
        clock=answer["clock"],
        accepting=answer["accepting"],
    )


def _keys() -> Iterator[Finding]:
    found = [name for name in PROVIDER_KEYS if os.environ.get(name)]
    if found:
        yield Finding(level=Level.OK, check="keys", what=f"{', '.join(found)} set here")
    else:
        yield Finding(
            level=Level.WARN,
            check="keys",
            what="no key of a model provider is set here; only the provider 'offline' works",
            advice=f"Set one of {', '.join(PROVIDER_KEYS)} where the workers start.",
        )
