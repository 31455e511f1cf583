"""The workers' Celery app: settings, one task, and the runtime behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from agentapi import Settings, load_settings
from agentapi.agents.definition import AgentDefinition, DefinedAgent
from agentapi.agents.registry import by_name, find_agents
from agentapi.broker.queues import turn_queues
from agentapi.broker.wire import TASK_NAME, celery_settings, transport_of
from agentapi.errors import ConfigurationError
from agentapi.logs import configure_logging
from agentapi.metrics.server import MetricsServer
from agentapi.providers.builtin import preload
from agentapi.readiness import replaces_another, report_ready
from agentapi.stores import InMemoryTurnStore, RedisTurnStore, TurnStore
from agentapi.tracing import preload_traces, set_up, traces
from workers.celery_ext import control as control
from workers.celery_ext.outcomes import TurnFailed
from workers.celery_ext.pool import to_tell
from workers.celery_ext.printing import print_nothing
from workers.celery_ext.report import twins_of
from workers.celery_ext.tracer import spare_tracebacks
from workers.dispatch import Dispatcher
from workers.isolation.freeing import free_turns
from workers.refusals import (
    cannot_start,
    refuse_no_agents,
    refuse_other_fleet,
    refuse_other_pools,
    refuse_other_queues,
    refuse_private_memory,
    refuse_unknown_limits,
)
from workers.runtime import Runtime
from workers.suspect_process import SERVICE, TRACES_EXIT, run_suspect
from workers.turns.summary import Summary
from workers.turns.suspect import SuspectTurn


class WorkerApp(Celery):
    """A Celery app that runs turns."""

    settings: Settings
    store: TurnStore
    dispatcher: Dispatcher
    runtime: Runtime
    metrics: MetricsServer | None = None


def create_app(
    settings: Settings | None = None,
    agents: Iterable[DefinedAgent | AgentDefinition] | None = None,
    store: TurnStore | None = None,
) -> WorkerApp:
    """Create the app. Nothing connects or starts before the worker does.

    Args:
        settings: By default from the environment and `.env`.
        agents: The agents to serve; by default those of `settings.agents`.
        store: By default Redis, or memory in eager mode.

    Raises:
        ConfigurationError: A real worker's memory is not Redis, an agent has a memory of its own,
            a module of agents cannot be imported, or a limit names an unknown provider.
        InvalidAgent: Two agents have the same name.
    """
    settings = settings or load_settings()
    agents = find_agents(settings.agents) if agents is None else list(agents)
    known = by_name(agents)
    refuse_unknown_limits(settings)
    if not settings.eager:
        refuse_private_memory(settings, agents)
    # Not the current app: in eager mode this runs in a user's process, which may have its own
    # Celery app.
    app: WorkerApp = WorkerApp("agentapi", set_as_current=False)  # type: ignore[no-untyped-call]
    app.conf.update(celery_settings(settings))
    app.conf.update(
        worker_pool="workers.celery_ext.pool:TurnPool",
        worker_consumer="workers.celery_ext.consumer:TurnConsumer",
        # No rate limits by annotations either: a token bucket would hold turns back in one worker.
        worker_disable_rate_limits=True,
        task_queues=turn_queues(settings),
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


def _add_task(app: WorkerApp) -> None:
    # Not shared: every app has its own, or a second eager app would run on the first.
    @app.task(  # type: ignore[untyped-decorator, no-untyped-call]
        name=TASK_NAME,
        shared=False,
        Request="workers.celery_ext.request:TurnRequest",
        # Celery logs these without a traceback: the turn's own log line says more.
        throws=(TurnFailed,),
    )
    def turn(*args: Any, **kwargs: Any) -> Summary:
        # In a worker the turn has already run: the pool set its outcome, and this call only passes
        # it to Celery. In eager mode no outcome is set, and the turn runs here.
        tell = to_tell.get()
        return tell() if tell is not None else app.runtime.execute(*args, **kwargs)


def _on_death(app: WorkerApp, owner: str, waiting: Sequence[SuspectTurn]) -> None:
    """In the watchdog: free the turns of the dead worker."""
    # Celery sets logging up after the fork.
    configure_logging(app.settings.log_level, app.settings.log_format)
    # The setting turns off only the freeing: suspect turns still need the process that forks.
    if app.settings.watchdog:
        runtime = app.runtime
        candidate = runtime.candidate(owner)
        free_turns(app.settings, app.dispatcher, runtime.process, candidate, waiting)


def serve_metrics(settings: Settings) -> MetricsServer | None:
    """Serve this worker's metrics, if a port for them is set.

    Raises:
        SystemExit: The port cannot be taken, or prometheus_client is not installed.
    """
    if settings.metrics_port is None:
        return None
    try:
        server = MetricsServer(
            settings.metrics_host,
            settings.metrics_port,
            setting="AGENTAPI_METRICS_PORT",
            waits=replaces_another(),
        )
    except ConfigurationError as error:
        raise cannot_start(str(error)) from error
    server.start()
    return server


def trace_worker(settings: Settings) -> None:
    """Enable this worker's traces if they are configured.

    Raises:
        SystemExit: OpenTelemetry is not installed, or its variables are not valid.
    """
    try:
        set_up(settings.traces, content=settings.trace_content, service=SERVICE)
    except ConfigurationError as error:
        raise cannot_start(str(error)) from error


def _connect_signals(app: WorkerApp) -> None:
    """Start and stop the runtime with the worker.

    Celery must keep strong references to the handlers (`weak=False`), because nothing else does.
    """

    def start(sender: Any, **_: Any) -> None:
        if sender.app is app:
            # Celery itself does so only after this.
            configure_logging(app.settings.log_level, app.settings.log_format)
            if app.settings.log_format == "json":
                print_nothing(sender)
            refuse_other_pools(sender)
            refuse_no_agents(app.runtime.agents)
            refuse_other_queues(app.settings, app.amqp.queues.consume_from)
            # With a separate store, because no connection may be open when the watchdog is forked.
            with closing(RedisTurnStore(app.settings)) as store:
                refuse_other_fleet(app.settings, store)
            # Before the fork, so that processes for suspect turns have the SDKs too. Importing them
            # takes a second, which the first turn would wait for.
            agents = app.runtime.agents.values()
            preload({choice.provider for agent in agents for choice in agent.choices})
            preload_traces(app.settings.traces)
            # Forking is safe only before this process has threads and connections.
            app.runtime.isolation.fork_watchdog(
                run=partial(run_suspect, app.settings, app.dispatcher, app.runtime.agents),
                on_death=partial(_on_death, app, sender.hostname),
            )
            spare_tracebacks()
            app.runtime.self_check.twins = partial(twins_of, app, sender.hostname)
            app.metrics = serve_metrics(app.settings)
            trace_worker(app.settings)
            app.runtime.start(sender.hostname)

    def ready(sender: Any, **_: Any) -> None:
        if sender.app is app:
            report_ready()

    def stop(sender: Any, **_: Any) -> None:
        if sender.app is app:
            app.runtime.stop()
            if app.metrics is not None:
                app.metrics.stop()
            # Last, because turns are closed and attempts end until here.
            traces().close(TRACES_EXIT)

    def stopping(how: str, **_: Any) -> None:
        # Celery calls this inside its signal handler, so nothing here may block.
        app.runtime.shutdown.request(at_once=how != "Warm")

    def logs(**_: Any) -> None:
        configure_logging(app.settings.log_level, app.settings.log_format)

    worker_init.connect(start, weak=False)
    worker_ready.connect(ready, weak=False)
    worker_shutting_down.connect(stopping, weak=False)
    worker_shutdown.connect(stop, weak=False)
    setup_logging.connect(logs, weak=False)
