"""`/healthz` and `/readyz`: whether the process is alive, and whether it can serve."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from agentapi import Settings
from agentapi.errors import AgentAPIError, LoginRefused
from agentapi.redis.connection import on_cluster, translate_errors
from agentapi.redis.keys import SWEPT_KEY
from orchestrator.client import Orchestrator
from orchestrator.gateway.dependencies import gateway_of
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.services import Gateway

router = APIRouter(tags=["health"], responses=errors(403, 421, 503))


class Alive(BaseModel):
    """The answer of a live process."""

    status: str


class Background(BaseModel):
    """One of the gateway's background tasks."""

    name: str
    running: bool
    failures: Annotated[int, Field(description="Unexpected errors since the process started.")]
    last_error: str | None


class Ready(BaseModel):
    """What the gateway needs, and the state of each part."""

    ready: Annotated[bool, Field(description="Whether this gateway can serve requests.")]
    redis: str
    broker: str
    workers: int
    follower: Annotated[str, Field(description="ok, or late: streams receive no events.")]
    sweeper: Annotated[
        str,
        Field(
            description="ok; silent: part of the sweep has not run for a while, so lost turns are "
            "not found; or unknown. Turns are served in any case."
        ),
    ]
    background: list[Background]


@router.get("/healthz")
async def alive() -> Alive:
    """The process is alive."""
    return Alive(status="ok")


@router.get("/readyz", responses={503: {"model": Ready, "description": "Something is missing."}})
async def ready(gateway: Annotated[Gateway, Depends(gateway_of)], response: Response) -> Ready:
    """Redis, the broker and at least one worker answer, and streams get their events."""
    redis, sweeper = await _store(gateway)
    census = await gateway.census.take(max_age=3.0)
    follower = "ok" if gateway.follower.fresh else "late"
    found = Ready(
        # The sweep does not count: it affects all gateways alike, and turns are still served.
        ready=redis == follower == "ok" and census.fault is None and bool(census.workers),
        redis=redis,
        broker="ok" if census.fault is None else "out of reach",
        workers=len(census.workers),
        follower=follower,
        sweeper=sweeper,
        background=[
            Background(
                name=status.name,
                running=status.running,
                failures=status.failures,
                last_error=status.last_error,
            )
            for status in gateway.supervisor.status()
        ],
    )
    response.status_code = 200 if found.ready else 503
    return found


async def _store(gateway: Gateway) -> tuple[str, str]:
    """The state of Redis, and of the sweep."""
    if on_cluster(gateway.settings):
        return await gateway.call(lambda orchestrator: _cluster(orchestrator, gateway.settings))
    try:
        with translate_errors(gateway.settings.redis_url):
            pipeline = gateway.redis.pipeline(transaction=False)
            # By command name: the client of a cluster has no such method.
            cast("Any", pipeline).execute_command("TIME")
            pipeline.get(SWEPT_KEY)
            (seconds, micros), swept = await pipeline.execute()
    except LoginRefused:
        return "refuses the login", "unknown"
    except AgentAPIError:
        return "out of reach", "unknown"
    if swept is None:
        return "ok", "unknown"
    age = seconds + micros / 1e6 - int(swept) / 1000
    return "ok", "ok" if age <= max_sweep_age(gateway.settings) else "silent"


def _cluster(orchestrator: Orchestrator, settings: Settings) -> tuple[str, str]:
    """The state of a cluster: a gateway can serve while at least one shard answers."""
    try:
        orchestrator.store.ping()
    except LoginRefused:
        return "refuses the login", "unknown"
    except AgentAPIError:
        return "out of reach", "unknown"
    try:
        age = orchestrator.store.since_sweep()
    except AgentAPIError:
        age = None
    if age is None:
        return "ok", "unknown"
    return "ok", "ok" if age <= max_sweep_age(settings) else "silent"


def max_sweep_age(settings: Settings) -> float:
    """Seconds since the last completed sweep after which the sweeper counts as silent."""
    return max(5.0, 5 * settings.sweep_interval)
