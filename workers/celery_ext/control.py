"""Celery's remote control (`celery control`, Flower's buttons) of workers whose tasks are turns.

Each command applies to turns in the way that its name says, or explains why it cannot. The app
imports this module because Celery looks commands up in one global registry.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from celery.utils.functional import maybe_list
from celery.worker import control as celery_control
from celery.worker.control import Panel, inspect_command

from agentapi.agents.accepted import accepted_by
from agentapi.broker.wire import turn_of_task
from agentapi.checks.report import COMMAND
from agentapi.errors import AgentAPIError, InvalidInput
from agentapi.logs import line
from agentapi.metrics.activity import COMMAND as ACTIVITY
from workers.celery_ext.activity import activity_of
from workers.celery_ext.report import report_of
from workers.celery_ext.status import status_of
from workers.turns.running import StopReason

log = logging.getLogger("agentapi.control")

_NO_PROCESSES = (
    "a turn has no process of its own to {what}: pool_grow and pool_shrink change how many turns "
    "this worker runs at the same time, and AGENTAPI_CONCURRENCY sets the initial number"
)

REFUSED: Final = {
    "rate_limit": (
        "a Celery rate limit would hold turns back in one worker while others are idle: use "
        "AGENTAPI_PROVIDER_LIMITS, which applies to the whole fleet"
    ),
    "time_limit": (
        "Celery's time limits kill processes, and a turn has no process of its own: use "
        "AGENTAPI_TURN_TIMEOUT, enqueue(deadline=...) or a tool's timeout=..."
    ),
    "pool_restart": _NO_PROCESSES.format(what="restart") + "; `shutdown` hands its turns to others",
    "autoscale": _NO_PROCESSES.format(what="add or remove"),
}
"""Celery commands that would do harm or have no effect, and what to answer instead."""


def _refuse(reason: str, state: Any, **_: Any) -> dict[str, str]:
    return {"error": reason}


def revoke(
    state: Any, task_id: str | Iterable[str], terminate: bool = False, **options: Any
) -> dict[str, Any]:
    """Cancel turns wherever they wait or run; revoke other tasks as Celery does."""
    turns, others = set(), set()
    for name in maybe_list(task_id) or ():
        try:
            turns.add(turn_of_task(name))
        except InvalidInput:
            others.add(name)
    for turn_id in turns:
        # This is the consumer's thread: a slow Redis must not keep it from taking messages.
        state.app.runtime.threads.submit(_cancel, state.app, turn_id)
    said = {"ok": f"turns to be cancelled: {', '.join(sorted(turns)) or 'none'}"}
    if others:
        said = celery_control.revoke(state, sorted(others), terminate=terminate, **options)
    return said


def terminate(
    state: Any, signal: Any = None, task_id: str | Iterable[str] = (), **_: Any
) -> dict[str, Any]:
    """Do the same as `revoke`: a turn has no process to kill, but it stops immediately."""
    return revoke(state, task_id, terminate=True, signal=signal)


def _cancel(app: Any, turn_id: str) -> None:
    """In a thread: cancel a turn. Every worker receives the command; the first one cancels."""
    # Stop it here first if it runs here. Otherwise it would learn of it only with the next
    # heartbeat.
    for turn in app.runtime.running.all():
        if turn.lease.turn_id == turn_id:
            turn.stop(StopReason.CANCELLED)
    try:
        app.dispatcher.send(app.store.cancel(turn_id).wakeup)
    except AgentAPIError as error:
        log.warning(line("turn.not_cancelled", turn_id=turn_id, error=error.code))
    except Exception as error:
        log.error(line("turn.not_cancelled", turn_id=turn_id, error=type(error).__name__))


def _resize(how: str, state: Any, n: int = 1, **_: Any) -> dict[str, str]:
    pool = state.consumer.pool
    try:
        getattr(pool, how)(n)
    except ValueError as error:
        return {"error": str(error)}
    # Celery counts on its own how many messages it may hold; that number must follow the pool's.
    state.consumer._update_prefetch_count(n if how == "grow" else -n)
    return {"ok": f"up to {pool.limit} turns at the same time"}


@inspect_command(name="agents")  # type: ignore[untyped-decorator]
def _agents(state: Any, **_: Any) -> dict[str, Any]:
    """The agents that this worker serves, and what requests may decide about them."""
    runtime = state.app.runtime
    default = state.app.settings.request_policy
    return {
        "agents": sorted(runtime.agents),
        "requests": {
            name: accepted_by(agent, default).to_dict() for name, agent in runtime.agents.items()
        },
    }


@inspect_command(name="services")  # type: ignore[untyped-decorator]
def _services(state: Any, **_: Any) -> dict[str, Any]:
    """The state of this worker and its background services, for `agentapi doctor`."""
    consumer = state.consumer.task_consumer
    return {
        **status_of(state.app.runtime),
        "queues": [queue.name for queue in consumer.queues] if consumer else [],
        "clock": time.time(),
    }


@inspect_command(name=COMMAND)  # type: ignore[untyped-decorator]
def _report(state: Any, check: bool = False, **_: Any) -> dict[str, Any]:
    """The worker's report for `agentapi doctor`.

    Args:
        state: Celery's.
        check: Whether to start another round of checks; a later report contains the results.
    """
    if check:
        state.app.runtime.self_check.want()
    return report_of(state).to_json()


@inspect_command(name=ACTIVITY)  # type: ignore[untyped-decorator]
def _activity(state: Any, **_: Any) -> dict[str, Any]:
    """What this worker does now, for `agentapi top` and the console."""
    return activity_of(state).to_json()


# Written into the registry itself, which keeps how the `celery` command parses their arguments.
Panel.data.update(
    revoke=revoke,
    terminate=terminate,
    pool_grow=partial(_resize, "grow"),
    pool_shrink=partial(_resize, "shrink"),
    **{name: partial(_refuse, reason) for name, reason in REFUSED.items()},
)
