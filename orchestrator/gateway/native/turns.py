"""The native API: turns and conversations."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from agentapi.conversation.messages import to_dict
from agentapi.metrics import recorder
from agentapi.metrics.catalog import STREAM_RESUMES
from agentapi.stores import CancelOutcome
from agentapi.turns import (
    ClientTool,
    ClientTools,
    OnAbort,
    OnBusy,
    Turn,
    TurnStatus,
    WaitingFor,
)
from agentapi.turns.client_tool_input import MAX_CLIENT_TOOLS, client_tools_of
from orchestrator.gateway.conversations import deletion
from orchestrator.gateway.dependencies import Key, TurnId, View
from orchestrator.gateway.http.errors import InvalidRequest, public_text, too_late
from orchestrator.gateway.http.json_response import OrjsonResponse
from orchestrator.gateway.http.openapi import SSE, errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.http.sse import EventStream
from orchestrator.gateway.native.stream import native_stream
from orchestrator.gateway.turn_labels import metadata_of
from orchestrator.gateway.turn_submission import Existing, NewMessage, accept, digest_of
from orchestrator.gateway.view import TenantView
from orchestrator.gateway.view_conversations import no_conversation

_PAGE_BYTES: Final = 524_288
"""Bytes of messages after which a page of a history ends early."""

router = APIRouter(tags=["native"], route_class=StrictRoute)


class ClientToolBody(BaseModel):
    """A function that the client runs itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    parameters: Annotated[
        dict[str, Any], Field(description="JSON schema of the arguments: an object.")
    ] = {}
    strict: bool = False


class CreateTurn(BaseModel):
    """A message to an agent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    agent: Annotated[str, Field(min_length=1)]
    message: Annotated[str, Field(min_length=1)]
    user_id: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    metadata: dict[str, Any] | None = None
    stream: Annotated[
        bool, Field(description="Whether the turn's events include text as it is generated.")
    ] = False
    on_busy: Annotated[
        Literal["enqueue", "reject", "interrupt", "replace", "merge", "steer"] | None,
        Field(description="What to do if the conversation has unfinished turns."),
    ] = None
    on_abort: Annotated[
        Literal["drop", "keep"] | None,
        Field(description="What the turn leaves in the history if it is cancelled or fails."),
    ] = None
    deadline: Annotated[
        float | None,
        Field(gt=0, lt=1e9, description="Seconds from now until the turn must have ended."),
    ] = None
    context: Annotated[
        dict[str, Any] | None,
        Field(
            description="Context for the agent's prompts, tools and hooks: a value of its "
            "context_type."
        ),
    ] = None

    client_tools: Annotated[
        list[ClientToolBody] | None,
        Field(max_length=MAX_CLIENT_TOOLS, description="Functions that the client runs itself."),
    ] = None


class TurnFault(BaseModel):
    """Why a turn failed."""

    code: str
    message: str


class TurnUsage(BaseModel):
    """Tokens of all model calls of a turn."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int


class WaitView(BaseModel):
    """A provider or tool server that a turn waits for. Times are seconds since 1970."""

    kind: Literal["provider", "tool_server"]
    names: list[str]
    failures: int
    since: float | None
    next_try_at: float | None


class TurnView(BaseModel):
    """The current state of a turn. Times are seconds since 1970."""

    turn_id: str
    conversation_id: str
    agent: str
    status: str
    waiting_for: WaitView | None
    input: str
    text: str | None
    finish_reason: Annotated[
        str | None,
        Field(
            description="Why the model stopped: stop, length, content_filter or refusal. Null "
            "until the turn is completed."
        ),
    ]
    error: TurnFault | None
    usage: TurnUsage
    steps: int
    attempt: int
    last_event: int
    user_id: str | None
    metadata: dict[str, Any]
    context: dict[str, Any] | None
    created_at: float
    started_at: float | None
    ended_at: float | None


class MessagePage(BaseModel):
    """A page of a history, oldest first; `next` is the `after` of the next page."""

    conversation_id: str
    messages: list[dict[str, Any]]
    next: int | None


class Deleted(BaseModel):
    """What was deleted."""

    conversation_id: str
    deleted: Literal[True] = True


def turn_view(view: TenantView, turn: Turn) -> TurnView:
    """A turn as its tenant sees it."""
    fault = None
    if turn.error is not None:
        message = public_text(turn.error.message, turn.error.code)
        fault = TurnFault(code=turn.error.code, message=message)
    return TurnView(
        turn_id=turn.turn_id,
        conversation_id=view.public(turn.conversation_id),
        agent=turn.agent,
        status=turn.status.value,
        waiting_for=_wait_view(turn.waiting_for),
        input=turn.input,
        text=turn.text,
        finish_reason=turn.finish_reason.value if turn.finish_reason else None,
        error=fault,
        usage=TurnUsage(
            input_tokens=turn.usage.input_tokens,
            output_tokens=turn.usage.output_tokens,
            cached_tokens=turn.usage.cached_tokens,
        ),
        steps=turn.steps,
        attempt=turn.attempt,
        last_event=turn.last_event,
        user_id=turn.user_id,
        metadata=metadata_of(turn),
        context=None if turn.context is None else dict(turn.context),
        created_at=turn.created_at,
        started_at=turn.started_at,
        ended_at=turn.ended_at,
    )


def _wait_view(waits: WaitingFor | None) -> WaitView | None:
    if waits is None:
        return None
    return WaitView(
        kind=waits.kind.value,
        names=list(waits.names),
        failures=waits.failures,
        since=waits.since,
        next_try_at=waits.next_try_at,
    )


@router.post(
    "/conversations/{conversation_id}/turns", status_code=202, responses=errors(404, 409, 422)
)
async def create_turn(
    conversation_id: str, body: CreateTurn, view: View, key: Key, response: Response
) -> TurnView:
    """Send a message to an agent. The turn is stored when the response arrives."""
    turn_id = await accept(
        view,
        NewMessage(
            agent=body.agent,
            text=body.message,
            idempotency_key=key or uuid.uuid4().hex,
            digest=digest_of(body, key),
            user_id=body.user_id,
            metadata=body.metadata or {},
            stream=body.stream,
            on_busy=OnBusy(body.on_busy) if body.on_busy else None,
            on_abort=OnAbort(body.on_abort) if body.on_abort else None,
            client_tools=_client_tools(body),
            deadline=body.deadline,
            context=body.context,
        ),
        Existing(conversation_id=conversation_id),
    )
    response.headers["location"] = f"/turns/{turn_id}"
    return turn_view(view, await view.turn(turn_id))


@router.get("/turns/{turn_id}", responses=errors(404))
async def get_turn(turn_id: TurnId, view: View) -> TurnView:
    """The current state of a turn."""
    return turn_view(view, await view.turn(turn_id))


@router.get(
    "/turns/{turn_id}/events",
    response_class=Response,
    responses={200: SSE, 204: {"description": "Nothing follows."}, **errors(404, 410)},
)
async def turn_events(
    turn_id: TurnId,
    view: View,
    last_event_id: Annotated[
        str | None, Header(description="Number of the last event already seen.")
    ] = None,
    after: Annotated[
        int | None,
        Query(
            ge=-1,
            le=2**53,
            description="The same as Last-Event-ID, for clients that cannot set headers.",
        ),
    ] = None,
) -> Response:
    """The turn's events, past and future, until the one that ends it."""
    seen = _number(last_event_id) if last_event_id is not None else after
    seen = -1 if seen is None else seen
    turn = await view.turn(turn_id)
    if turn.status.ended and seen >= turn.last_event:
        # This status tells a browser not to reconnect.
        return Response(status_code=204)
    with ExitStack() as held:
        held.enter_context(view.stream_slot())
        await view.check_events(turn, seen)
        if seen >= 0:
            recorder().count(STREAM_RESUMES)
        return EventStream(
            native_stream(view, turn, seen),
            stall=view.gateway.settings.gateway_stall,
            held=held.pop_all(),
        )


def _client_tools(body: CreateTurn) -> ClientTools | None:
    tools = [ClientTool(**tool.model_dump()) for tool in body.client_tools or ()]
    return client_tools_of(tools)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidRequest(
            "Last-Event-ID is not the number of an event: send the id of the last event received",
            param="Last-Event-ID",
        )
    return int(text)


@router.post("/turns/{turn_id}/cancel", responses=errors(404, 409))
async def cancel_turn(turn_id: TurnId, view: View) -> TurnView:
    """Cancel a turn: a waiting one immediately, a running one within a moment.

    A repeat changes nothing. 409 means that the turn had already completed or failed.
    """
    outcome = await view.cancel(turn_id)
    turn = await view.turn(turn_id)
    if outcome is CancelOutcome.ENDED and turn.status is not TurnStatus.CANCELLED:
        raise too_late(turn)
    return turn_view(view, turn)


@router.get(
    "/conversations/{conversation_id}/messages", response_model=MessagePage, responses=errors(404)
)
async def get_messages(
    conversation_id: str,
    view: View,
    after: Annotated[
        int, Query(ge=-1, le=2**53, description="Position of the last message already seen.")
    ] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> OrjsonResponse:
    """The history of a conversation, oldest first, in pages."""
    found = await view.history(conversation_id).messages(after + 1, limit, _PAGE_BYTES)
    if found is None:
        raise no_conversation(conversation_id)
    total, messages = found
    newest = after + len(messages)
    return OrjsonResponse(
        {
            "conversation_id": conversation_id,
            "messages": [to_dict(message) for message in messages],
            "next": newest if messages and newest + 1 < total else None,
        }
    )


@router.delete("/conversations/{conversation_id}", responses=errors(404, 409))
async def delete_conversation(conversation_id: str, view: View) -> Deleted:
    """Delete a conversation and its turns. Unfinished turns are cancelled first."""
    await deletion.delete_conversation(view, conversation_id)
    return Deleted(conversation_id=conversation_id)
