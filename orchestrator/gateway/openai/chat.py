"""`/v1/chat/completions`: a completion is a turn."""

from __future__ import annotations

from contextlib import ExitStack

from fastapi import APIRouter, Response

from agentapi.turns import TurnStatus
from orchestrator.gateway.conversations.deletion import after_reply, after_stream, forget_unstored
from orchestrator.gateway.dependencies import Key, View
from orchestrator.gateway.http.json_response import OrjsonResponse
from orchestrator.gateway.http.openapi import SSE, errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.http.sse import EventStream
from orchestrator.gateway.openai.objects import chat_object
from orchestrator.gateway.openai.request_bodies import CreateChat
from orchestrator.gateway.openai.schemas import ChatObject
from orchestrator.gateway.openai.streams import chat_stream
from orchestrator.gateway.openai.submission import enqueue_chat, wait_for_end
from orchestrator.results import raise_if_failed

router = APIRouter(prefix="/v1/chat/completions", tags=["openai"], route_class=StrictRoute)


@router.post(
    "",
    response_class=Response,
    responses={
        200: {
            "model": ChatObject,
            "description": "The completion, or its chunks if it is streamed.",
            "content": SSE["content"],
        },
        **errors(404, 409, 422, 502, 504),
    },
)
async def create_chat(body: CreateChat, view: View, key: Key) -> Response:
    """Ask an agent to answer the last message."""
    with ExitStack() as held:
        held.enter_context(view.stream_slot())
        made = await enqueue_chat(view, body, key)
        if body.stream:
            turn = await view.turn(made.turn_id)
            await view.check_events(turn, -1)
            options = body.stream_options
            return EventStream(
                chat_stream(
                    view,
                    turn,
                    include_usage=bool(options and options.include_usage),
                    number=made.part,
                ),
                stall=view.gateway.settings.gateway_stall,
                held=held.pop_all(),
                headers=made.headers,
                background=after_stream(view, turn),
            )
        part = await wait_for_end(view, made, key)
    turn = part.turn
    if part.status is not TurnStatus.COMPLETED:
        await forget_unstored(view, turn)
        raise_if_failed(turn)
    return OrjsonResponse(
        chat_object(part), headers=made.headers, background=after_reply(view, turn)
    )
