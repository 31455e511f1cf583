"""`/v1/responses`: turns as responses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from agentapi.errors import TurnNotFound
from agentapi.metrics import recorder
from agentapi.metrics.catalog import STREAM_RESUMES
from agentapi.turns import Turn, TurnStatus
from orchestrator.gateway.conversations.deletion import (
    after_reply,
    after_stream,
    delete_turn,
    forget_unstored,
)
from orchestrator.gateway.dependencies import Key, View
from orchestrator.gateway.http.errors import InvalidRequest, NotFound, too_late
from orchestrator.gateway.http.json_response import OrjsonResponse
from orchestrator.gateway.http.openapi import SSE, errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.http.sse import EventStream
from orchestrator.gateway.ids import part_of, response_id, turn_id_of
from orchestrator.gateway.openai.items import items_of, page, user_item
from orchestrator.gateway.openai.objects import response_object
from orchestrator.gateway.openai.option_fields import Include as Includable
from orchestrator.gateway.openai.parts import Part, read_part
from orchestrator.gateway.openai.request_bodies import CreateResponse
from orchestrator.gateway.openai.schemas import (
    DeletedResponse,
    ItemObject,
    ListOf,
    ResponseObject,
)
from orchestrator.gateway.openai.streams import response_stream
from orchestrator.gateway.openai.submission import enqueue_response, wait_for_end
from orchestrator.gateway.view import TenantView
from orchestrator.results import raise_if_failed

router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=StrictRoute)

_CANCEL_MARGIN = 2.0
"""Seconds to wait for a cancellation, in addition to the workers' heartbeat."""

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Annotated[Literal["asc", "desc"], Query()]
After = Annotated[str | None, Query()]
Include = Annotated[
    list[Includable] | None,
    Query(alias="include[]", description="Accepted for compatibility; adds nothing."),
]

_JSON_OR_SSE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ResponseObject,
        "description": "The response, or its events if it is streamed.",
        "content": SSE["content"],
    }
}


@router.post(
    "", response_class=Response, responses={**_JSON_OR_SSE, **errors(404, 409, 422, 502, 504)}
)
async def create_response(body: CreateResponse, view: View, key: Key) -> Response:
    """Send a message to an agent. Wait for the reply, stream it, or do neither (background)."""
    with ExitStack() as held:
        # Check before the turn is accepted: a later refusal would leave a turn that nobody waits
        # for.
        if body.stream or not body.background:
            held.enter_context(view.stream_slot())
        made = await enqueue_response(view, body, key)
        if body.stream:
            turn = await view.turn(made.turn_id)
            await view.check_events(turn, -1)
            # The stream keeps the slot, because it outlives this function.
            return _stream(view, turn, made.part, -1, held.pop_all(), headers=made.headers)
        if body.background:
            part = await read_part(view, await view.turn(made.turn_id), made.part)
            return OrjsonResponse(_to_json(view, part), headers=made.headers)
        part = await wait_for_end(view, made, key)
    if part.status is not TurnStatus.COMPLETED:
        await forget_unstored(view, part.turn)
        raise_if_failed(part.turn)
    return _delivered(view, part, made.headers)


@router.get("/{response}", response_class=Response, responses={**_JSON_OR_SSE, **errors(404, 410)})
async def get_response(
    response: str,
    view: View,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    include_obfuscation: bool = False,
    include: Include = None,
) -> Response:
    """Retrieve a response, or stream its events after a sequence number."""
    if starting_after is not None and not stream:
        raise InvalidRequest("starting_after needs stream=true", param="starting_after")
    turn = await _turn(view, response)
    part = await read_part(view, turn, part_of(response))
    if not stream:
        return _delivered(view, part, {})
    with ExitStack() as held:
        held.enter_context(view.stream_slot())
        # Sequence numbers depend on all events, even on those that the client does not request.
        await view.check_events(turn, -1)
        if starting_after is not None:
            recorder().count(STREAM_RESUMES)
        after = -1 if starting_after is None else starting_after
        return _stream(view, turn, part.number, after, held.pop_all())


@router.post(
    "/{response}/cancel",
    response_model=None,
    responses={200: {"model": ResponseObject}, **errors(404, 409)},
)
async def cancel_response(response: str, view: View) -> dict[str, Any]:
    """Cancel a background response. A repeat changes nothing; 409 if it is too late."""
    turn = await _turn(view, response)
    part = await read_part(view, turn, part_of(response))
    if not part.labels.background:
        raise InvalidRequest(
            "only a response created with background=true can be cancelled; POST "
            f"/turns/{turn.turn_id}/cancel cancels any turn",
            param="response_id",
            code="not_background",
        )
    if part.ends is not None:
        raise too_late(turn)
    await view.cancel(turn.turn_id)
    seconds = view.gateway.settings.heartbeat + _CANCEL_MARGIN
    turn = await view.wait(turn.turn_id, seconds)
    if turn.status.ended and turn.status is not TurnStatus.CANCELLED:
        raise too_late(turn)
    return _to_json(view, await read_part(view, turn, part.number))


@router.delete(
    "/{response}",
    response_model=None,
    responses={200: {"model": DeletedResponse}, **errors(404, 409)},
)
async def delete_response(response: str, view: View) -> dict[str, Any]:
    """Delete a response that has ended."""
    await delete_turn(view, await _turn(view, response))
    return {"id": response, "object": "response.deleted", "deleted": True}


@router.get(
    "/{response}/input_items",
    response_model=None,
    responses={200: {"model": ListOf[ItemObject]}, **errors(404)},
)
async def list_input_items(
    response: str,
    view: View,
    after: After = None,
    limit: Limit = 20,
    order: Order = "desc",
    include: Include = None,
) -> dict[str, Any]:
    """List the input items of a response."""
    turn = await _turn(view, response)
    part = await read_part(view, turn, part_of(response))
    if part.begins is not None:
        items = part.input()
    else:
        seeds = [found.item for found in items_of(await view.seeds(turn))]
        items = [*seeds, user_item(turn.turn_id, turn.input)]
    return page(items, after=after, limit=limit, order=order)


async def _turn(view: TenantView, response: str) -> Turn:
    try:
        return await view.turn(turn_id_of(response))
    except TurnNotFound:
        raise NotFound(
            f"there is no response {response!r}: it was deleted, or it ended longer than "
            "AGENTAPI_TURN_RETENTION ago",
            code="response_not_found",
        ) from None


def _to_json(view: TenantView, part: Part) -> dict[str, Any]:
    return response_object(part, view.public(part.turn.conversation_id))


def _delivered(view: TenantView, part: Part, headers: Mapping[str, str]) -> OrjsonResponse:
    """The current state of the response. After it is sent, a turn with store=false is deleted."""
    return OrjsonResponse(
        _to_json(view, part), headers=dict(headers), background=after_reply(view, part.turn)
    )


def _stream(
    view: TenantView,
    turn: Turn,
    number: int,
    after: int,
    held: ExitStack,
    *,
    headers: Mapping[str, str] | None = None,
) -> EventStream:
    return EventStream(
        response_stream(view, turn, after, number=number, fresh=turn.last_event < 0),
        stall=view.gateway.settings.gateway_stall,
        held=held,
        headers={"x-response-id": response_id(turn.turn_id, number), **(headers or {})},
        background=after_stream(view, turn),
    )
