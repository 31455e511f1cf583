"""Refusals to start: configurations with which turns would hang or fail."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from celery.concurrency import get_implementation

from agentapi import Agent, Settings
from agentapi.agents.definition import AgentDefinition, DefinedAgent
from agentapi.broker.wire import queue_names
from agentapi.checks.queues import disagreement
from agentapi.environment import variable
from agentapi.errors import AgentAPIError, ConfigurationError, InvalidAgent, StoreUnavailable
from agentapi.logs import configure_logging, line
from agentapi.providers import providers
from agentapi.stores import TurnStore
from workers.celery_ext.pool import TurnPool

log = logging.getLogger("agentapi.worker")


def refuse_private_memory(
    settings: Settings, agents: Iterable[DefinedAgent | AgentDefinition]
) -> None:
    """Refuse memory that only one worker would see.

    Raises:
        ConfigurationError: The settings or an agent ask for such memory.
    """
    if settings.memory != "redis":
        raise ConfigurationError(
            f"AGENTAPI_MEMORY is {settings.memory!r}: a worker needs 'redis', because the next "
            "turn of a conversation may run on another worker, which cannot see this process's "
            "memory. InMemoryMemory is for eager test mode (AGENTAPI_EAGER=true)"
        )
    for agent in agents:
        if isinstance(agent, Agent) and agent.has_memory:
            raise ConfigurationError(
                f"agent {agent.name!r} has a memory ({type(agent.memory).__name__}): a worker "
                "runs one agent for many conversations and keeps them in Redis itself; remove "
                "memory=... from its definition"
            )


def refuse_unknown_limits(settings: Settings) -> None:
    """Refuse limits of unknown providers, which would have no effect.

    Raises:
        ConfigurationError: There is such a limit.
    """
    for name in settings.provider_limits:
        try:
            providers.check(name)
        except InvalidAgent as error:
            raise ConfigurationError(f"AGENTAPI_PROVIDER_LIMITS: {error}") from error


def refuse_other_pools(worker: Any) -> None:
    """Refuse options of Celery's worker that turns cannot run under.

    Raises:
        SystemExit: The worker was started with such an option.
    """
    if worker.options.get("autoscale"):
        raise cannot_start(
            "--autoscale adds and removes processes, which turns do not need; set the number of "
            "turns that run at the same time with --concurrency (AGENTAPI_CONCURRENCY)"
        )
    pool = get_implementation(worker.pool_cls)
    if not issubclass(pool, TurnPool):
        raise cannot_start(
            f"--pool is {pool.__module__}:{pool.__name__}; turns "
            "need their own pool, which is the default"
        )


def refuse_no_agents(agents: Mapping[str, AgentDefinition]) -> None:
    """Refuse a worker without agents, which would fail every turn that it takes.

    Raises:
        SystemExit: It has no agents.
    """
    if not agents:
        raise cannot_start(
            "it has no agents; name the modules that define them in AGENTAPI_AGENTS, such as "
            "AGENTAPI_AGENTS=shop, or with `agentapi worker --agents shop`"
        )


def refuse_other_queues(settings: Settings, consumed: Collection[str]) -> None:
    """Refuse a worker that reads none of the queues that turns are sent to.

    Args:
        settings: The worker's settings.
        consumed: The queues that it would read.

    Raises:
        SystemExit: None of them has turns.
    """
    queues = queue_names(settings.queues)
    if not set(consumed) & set(queues):
        raise cannot_start(
            f"it would read the queues {', '.join(sorted(consumed)) or 'none'} (-Q, -X), but turns "
            f"are sent to {queues[0]} … {queues[-1]}; start it without -Q and -X"
        )


def refuse_other_fleet(settings: Settings, store: TurnStore) -> None:
    """Refuse to start if this worker is incompatible with the running ones.

    An unreachable Redis is not an error here: the worker waits for it, and each claim checks the
    protocol again.

    Raises:
        SystemExit: The fleet writes a newer protocol, or has another number of queues.
    """
    try:
        store.check_protocol()
        fleet = store.agree(settings.queues)
    except StoreUnavailable:
        return
    except AgentAPIError as error:
        raise cannot_start(str(error)) from error
    if fleet != settings.queues:
        raise cannot_start(disagreement(settings.queues, fleet))


def cannot_start(why: str) -> SystemExit:
    """The exception that ends a worker that cannot start, with the reason."""
    if variable("AGENTAPI_LOG_FORMAT") != "json":
        return SystemExit(f"agentapi worker cannot start: {why}")
    # The settings themselves may be invalid.
    configure_logging("INFO", "json")
    log.critical(line("worker.cannot_start", why=why))
    return SystemExit(1)
