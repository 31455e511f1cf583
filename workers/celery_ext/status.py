"""The state of a worker process, for `celery inspect services` and `agentapi doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.runtime import Runtime


def status_of(runtime: Runtime) -> dict[str, Any]:
    """The background services and counters of a worker, without content or ids.

    Args:
        runtime: The worker's runtime.
    """
    tools, sweeper = runtime.tool_places.standing(), runtime.sweeper
    return {
        "accepting": runtime.accepting(),
        "services": [
            {**asdict(service), "idle": round(service.idle, 1)}
            for service in runtime.supervisor.status()
        ],
        "silent": runtime.liveness.silence(),
        "turns": {
            "running": len(runtime.running.all()),
            "isolated": runtime.isolation.count,
        },
        "tool_threads": {**asdict(tools), "stuck": round(tools.stuck, 1)},
        "sweep": {
            "absent": sweeper.absent,
            "since": round(sweeper.since_sweep, 1),
            "groups": len(sweeper.groups),
            "leads": sweeper.leads,
        },
        "store": {"away": runtime.outage.lasts},
        "broker": {"away": runtime.dispatcher.away},
    }
