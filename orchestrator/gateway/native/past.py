"""A turn's timeline in the native API, and running it again from one of its steps."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from agentapi.turns import TurnError
from orchestrator.fork import ForkRequest
from orchestrator.gateway.dependencies import Key, TurnId, View
from orchestrator.gateway.http.errors import public_text
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.native.turns import TurnView, turn_view
from orchestrator.gateway.turn_changes import fork_turn
from orchestrator.timeline import Timeline

router = APIRouter(tags=["native"], route_class=StrictRoute)


class ForkTurn(BaseModel):
    """How to run a turn again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: Annotated[
        int,
        Field(ge=0, description="Number of its steps to copy, as counted in its timeline."),
    ] = 0
    message: Annotated[
        str | None, Field(min_length=1, description="The message to send instead.")
    ] = None
    by: Annotated[
        str | None, Field(max_length=512, description="Who asks; stored with the new turn.")
    ] = None


@router.get("/turns/{turn_id}/timeline", responses=errors(404))
async def get_timeline(turn_id: TurnId, view: View) -> Timeline:
    """What happened to a turn, and when. Times are seconds since 1970."""
    turn = await view.turn(turn_id)
    found = await view.gateway.call(lambda o: o.timeline(turn.turn_id))
    error = found.error and TurnError(
        code=found.error.code,
        message=public_text(found.error.message, found.error.code),
        status=found.error.status,
    )
    named = replace(found, conversation_id=view.public(found.conversation_id), error=error)
    return named.without_workers()


@router.post("/turns/{turn_id}/fork", status_code=202, responses=errors(404, 409, 422))
async def fork(
    turn_id: TurnId, body: ForkTurn, view: View, key: Key, response: Response
) -> TurnView:
    """Run a turn again from one of its steps, in a copy of its conversation."""
    turn = await view.turn(turn_id)
    request = ForkRequest(
        turn_id=turn.turn_id,
        step=body.step,
        message=body.message,
        key=key or uuid.uuid4().hex,
        by=body.by,
    )
    forked = await fork_turn(view.gateway, view.tenant, request)
    response.headers["location"] = f"/turns/{forked}"
    return turn_view(view, await view.turn(forked))
