"""`/healthz` and `/readyz`: is the process alive, and can it serve."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from agentapi.errors import StoreUnavailable
from agentapi.stores.connection import translate_errors
from orchestrator.gateway.access import gateway_of
from orchestrator.gateway.core import Gateway
from orchestrator.gateway.documented import errors

router = APIRouter(tags=["health"], responses=errors(403, 421, 503))


class Alive(BaseModel):
    """The process answers."""

    status: str


class Ready(BaseModel):
    """What the gateway needs, and whether it is there."""

    ready: bool
    redis: str
    broker: str
    workers: int


@router.get("/healthz")
async def alive() -> Alive:
    """The process is alive."""
    return Alive(status="ok")


@router.get("/readyz", responses={503: {"model": Ready, "description": "Something is missing."}})
async def ready(gateway: Annotated[Gateway, Depends(gateway_of)], response: Response) -> Ready:
    """Redis and the broker answer, and at least one worker does."""
    try:
        with translate_errors(gateway.settings.redis_url):
            await gateway.redis.ping()
        redis = "ok"
    except StoreUnavailable:
        redis = "out of reach"
    census = await gateway.census.take(fresh=3.0)
    found = Ready(
        ready=redis == "ok" and census.fault is None and bool(census.workers),
        redis=redis,
        broker="ok" if census.fault is None else "out of reach",
        workers=len(census.workers),
    )
    response.status_code = 200 if found.ready else 503
    return found
