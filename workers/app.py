"""The workers' Celery app: settings, one task, and the runtime behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from celery.concurrency import get_implementation
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down
from kombu.entity import Queue

from agentapi import Agent, Settings, load_settings
from agentapi.agents.definition import AgentDefinition, DefinedAgent
from agentapi.agents.registry import by_name, find_agents
from agentapi.broker.wire import TASK_NAME, celery_settings, queue_names, transport_of
from agentapi.errors import ConfigurationError, InvalidAgent, StoreUnavailable
from agentapi.flows import flow_agents
from agentapi.providers import providers
from agentapi.stores import InMemoryTurnStore, RedisTurnStore, TurnStore
from workers.celery_ext import control as control
from workers.celery_ext.outcomes import Summary, TurnFailed
from workers.celery_ext.pool import TurnPool, to_tell
from workers.dispatch import Dispatcher
from workers.isolation import SuspectTurn
from workers.isolation.child import run_isolated
from workers.isolation.freeing import free_turns
from workers.logs import configure_logging
from workers.runtime import Runtime


class WorkerApp(Celery):
    """A Celery app that carries turns out."""

    settings: Settings
    store: TurnStore
    dispatcher: Dispatcher
    runtime: Runtime


def create_app(
    settings: Settings | None = None,
    agents: Iterable[DefinedAgent | AgentDefinition] | None = None,
    store: TurnStore | None = None,
) -> WorkerApp:
    """Make the app. Nothing is connected or started before the worker is.

    Args:
        settings: From the environment and `.env` when not given.
        agents: Whom to serve; the agents of `settings.agents` when not given.
        store: Redis by the settings, or in memory in eager mode, when not given.

    Raises:
        ConfigurationError: The memory is not Redis in a real worker, an agent carries a memory
            of its own, an agents' module cannot be imported, or a limit is for no provider.
        InvalidAgent: Two agents have one name.
    """
    settings = settings or load_settings()
    if agents is None:
        _import_from_here()
        agents = find_agents(settings.agents)
    else:
        agents = list(agents)
    known = by_name([*agents, *flow_agents()])
    refuse_unknown_limits(settings)
    if not settings.eager:
        refuse_private_memory(settings, agents)
    app: WorkerApp = WorkerApp("agentapi", set_as_current=False)  # type: ignore[no-untyped-call]
    app.conf.update(celery_settings(settings))
    app.conf.update(
        worker_pool="workers.celery_ext.pool:TurnPool",
        worker_consumer="workers.celery_ext.consumer:TurnConsumer",
        # Also by annotations: a bucket would keep turns in one worker.
        worker_disable_rate_limits=True,
        task_queues=[Queue(name) for name in queue_names(settings.queues)],
        broker_transport=transport_of(settings, "agentapi.broker.consumer_transport"),
    )
    app.settings = settings
    if store is None:
        store = (
            InMemoryTurnStore(settings)
            if settings.eager
            else RedisTurnStore(settings, keep_connections=True)
        )
    app.store = store
    app.dispatcher = Dispatcher(app, settings)
    app.runtime = Runtime(settings, known, store, app.dispatcher)
    _add_task(app)
    _connect_signals(app)
    return app


def refuse_private_memory(
    settings: Settings, agents: Iterable[DefinedAgent | AgentDefinition]
) -> None:
    """Raises:
    ConfigurationError: Conversations would live where no other worker sees them.
    """
    if settings.memory != "redis":
        raise ConfigurationError(
            f"AGENTAPI_MEMORY is {settings.memory!r}: a worker needs 'redis', since the next turn "
            "of a conversation may go to another worker, which cannot see this one's memory. "
            "InMemoryMemory is for eager test mode (AGENTAPI_EAGER=true)"
        )
    for agent in agents:
        if isinstance(agent, Agent) and agent.has_memory:
            raise ConfigurationError(
                f"agent {agent.name!r} carries a memory ({type(agent.memory).__name__}): a worker "
                "runs one agent for many conversations and keeps them in Redis itself; remove "
                "memory=... from its definition"
            )


def refuse_unknown_limits(settings: Settings) -> None:
    """Raises:
    ConfigurationError: A limit is for no provider, and so would limit nothing.
    """
    for name in settings.provider_limits:
        try:
            providers.check(name)
        except InvalidAgent as error:
            raise ConfigurationError(f"AGENTAPI_PROVIDER_LIMITS: {error}") from error


def _import_from_here() -> None:
    """Agents' modules are looked for in the working directory too, as `celery -A` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _add_task(app: WorkerApp) -> None:
    # Not shared: every app has its own, or a second eager app would run on the first.
    @app.task(  # type: ignore[untyped-decorator, no-untyped-call]
        name=TASK_NAME,
        shared=False,
        Request="workers.celery_ext.request:TurnRequest",
        # Logged in one line: the turn's own line says more.
        throws=(TurnFailed,),
    )
    def turn(*args: Any, **kwargs: Any) -> Summary:
        tell = to_tell.get()
        return tell() if tell is not None else app.runtime.execute(*args, **kwargs)


def _on_death(app: WorkerApp, owner: str, waiting: Sequence[SuspectTurn]) -> None:
    """In the watchdog: the worker is dead."""
    # Celery sets logging up after the fork.
    configure_logging(app.settings.log_level, app.settings.log_format)
    if app.settings.watchdog:
        free_turns(app, app.runtime.candidate(owner), waiting)


def refuse_other_pools(worker: Any) -> None:
    """Raises:
    SystemExit: Celery's worker was started with options under which turns cannot be carried out.
    """
    if worker.options.get("autoscale"):
        raise SystemExit(
            "agentapi worker cannot start: --autoscale adds and removes processes, and a turn "
            "holds none; say with --concurrency (AGENTAPI_CONCURRENCY) how many turns it carries "
            "out at once"
        )
    pool = get_implementation(worker.pool_cls)
    if not issubclass(pool, TurnPool):
        raise SystemExit(
            f"agentapi worker cannot start: --pool is {pool.__module__}:{pool.__name__}; turns "
            "need the pool of their own, which is the default"
        )


def refuse_newer_fleet(store: TurnStore) -> None:
    """See that this release can read what the others write. A Redis that is away is waited for by
    the worker itself; what cannot be read then is found with each turn.

    Raises:
        SystemExit: It cannot.
    """
    try:
        store.check_protocol()
    except StoreUnavailable:
        return
    except ConfigurationError as error:
        raise SystemExit(f"agentapi worker cannot start: {error}") from error


def _connect_signals(app: WorkerApp) -> None:
    """The runtime lives as long as the worker. Strong references: the app keeps the handlers."""

    def start(sender: Any, **_: Any) -> None:
        if sender.app is app:
            refuse_other_pools(sender)
            # First: a process is forked cleanly only before there are threads and connections.
            app.runtime.isolation.fork_watchdog(
                run=partial(run_isolated, app), on_death=partial(_on_death, app, sender.hostname)
            )
            refuse_newer_fleet(app.store)
            app.runtime.start(sender.hostname)

    def stop(sender: Any, **_: Any) -> None:
        if sender.app is app:
            app.runtime.stop()

    def stopping(how: str, **_: Any) -> None:
        app.runtime.shutdown_requested(at_once=how != "Warm")

    def logs(**_: Any) -> None:
        configure_logging(app.settings.log_level, app.settings.log_format)

    worker_init.connect(start, weak=False)
    worker_shutting_down.connect(stopping, weak=False)
    worker_shutdown.connect(stop, weak=False)
    setup_logging.connect(logs, weak=False)
