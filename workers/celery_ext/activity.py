"""A worker's answer for views of the fleet."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Set
from dataclasses import replace
from heapq import nlargest
from importlib.metadata import version
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from agentapi.metrics.activity import MOST_TURNS, ProviderUse, RunningNow, WorkerActivity
from agentapi.metrics.pace import pace

if TYPE_CHECKING:
    from workers.runtime import Runtime

ANOTHER: Final = "another tool"
"""Stands for tools that the worker's agents do not declare: tools of servers, and names that a
model made up, which may contain users' text."""


def activity_of(state: Any) -> WorkerActivity:
    """The worker's current activity. Does not block.

    Args:
        state: Celery's state of the remote control.
    """
    app = state.app
    runtime: Runtime = app.runtime
    pool, tasks = state.consumer.pool, state.consumer.task_consumer
    return WorkerActivity(
        process=runtime.process,
        pid=os.getpid(),
        version=version("agentapi"),
        uptime=time.monotonic() - runtime.began,
        slots=pool.limit,
        used=pool.info["in-flight"],
        accepting=runtime.accepting(),
        stopping=runtime.shutdown.begun,
        redis_away=runtime.outage.lasts,
        agents=sorted(runtime.agents),
        queues=[queue.name for queue in tasks.queues] if tasks else [],
        providers=_providers(app),
        faults=[service.name for service in runtime.supervisor.status() if service.in_a_row],
        minute=pace.minute(),
        turns=nlargest(MOST_TURNS, _turns(runtime), key=attrgetter("seconds")),
    )


def _providers(app: Any) -> dict[str, ProviderUse]:
    limits = app.settings.provider_limits
    names = {choice.provider for agent in app.runtime.agents.values() for choice in agent.choices}
    return {
        name: ProviderUse(
            requests=limits[name].requests if name in limits else None,
            tokens=limits[name].tokens if name in limits else None,
        )
        for name in sorted(names)
    }


def _turns(runtime: Runtime) -> Iterator[RunningNow]:
    declared = {tool.name for agent in runtime.agents.values() for tool in agent.tools}
    for turn in runtime.running.all():
        if turn.about is not None:
            now = turn.about()
            yield replace(now, tools=_declared(now.tools, declared)) if now.tools else now
    for suspect, seconds in runtime.isolation.turns():
        yield RunningNow(
            turn_id=suspect.turn_id,
            conversation_id=suspect.conversation_id,
            agent=suspect.agent,
            seconds=seconds,
            doing="isolated",
        )


def _declared(names: Any, declared: Set[str]) -> list[str]:
    return sorted({name if name in declared else ANOTHER for name in names})
