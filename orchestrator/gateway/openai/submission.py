"""Accepts the turns of OpenAI's requests: responses and chat completions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.gateway.conversations.forks import continue_turn
from orchestrator.gateway.http.errors import GatewayError, InvalidRequest, Stopping
from orchestrator.gateway.ids import new_conversation_id, response_id, turn_id_of
from orchestrator.gateway.openai.answering import (
    Following,
    answered_by,
    go_on,
    opening_of,
    refuse_unanswered,
    rounds,
)
from orchestrator.gateway.openai.decisions import Decided, decide
from orchestrator.gateway.openai.function_tools import AskedTools, ending_at_once, tools_of
from orchestrator.gateway.openai.given_back import messages_of, not_in
from orchestrator.gateway.openai.input import Entry, InputMessage, from_chat, from_input, split
from orchestrator.gateway.openai.parts import Part, ends_of, read_part
from orchestrator.gateway.openai.request_bodies import CreateChat, CreateResponse
from orchestrator.gateway.openai.request_options import asked_by_chat, asked_by_response
from orchestrator.gateway.turn_labels import Labels
from orchestrator.gateway.turn_submission import (
    Destination,
    Existing,
    NewMessage,
    Unnamed,
    accept,
    digest_of,
)
from orchestrator.gateway.view import TenantView

CONVERSATION: Final = "conversation_id"
"""The key in a chat completion's metadata that names the conversation to continue."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enqueued:
    """A turn that was accepted or continued, and the ignored parameters of its request.

    Attributes:
        part: The part of the turn that is the request's response.
        new: Whether the request certainly created the turn, instead of finding it by its key.
    """

    turn_id: str
    decided: Decided
    part: int = 0
    new: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response to the request."""
        return {"x-response-id": response_id(self.turn_id, self.part), **self.decided.headers}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """The content of a request.

    Attributes:
        body: The request.
        entries: The conversation in it.
        tools: Its tool parameters.
        decided: Its other options, as far as the policy accepts them.
        labels: How it was made.
        key: The client's idempotency key, or None.
        operation: The idempotency key, or a random value.
    """

    body: CreateResponse | CreateChat
    entries: Sequence[Entry]
    tools: AskedTools
    decided: Decided
    labels: Labels
    key: str | None
    operation: str


async def enqueue_response(view: TenantView, body: CreateResponse, key: str | None) -> Enqueued:
    """Accept a response.

    Raises:
        AgentAPIError: It is refused, or cannot be stored now.
    """
    said = from_input(body.input)
    tools = tools_of(body.tools, body.tool_choice, body.parallel_tool_calls, nested=False)
    previous, named = _previous(body), body.previous_response_id or body.conversation_id
    request = _Request(
        body=body,
        entries=said.entries,
        tools=tools,
        decided=await decide(
            view.gateway.agents, body.model, asked_by_response(body, said.instructions)
        ),
        labels=Labels(
            background=bool(body.background),
            implicit=body.conversation_id is None,
            previous=previous,
            user=body.user,
            safety_identifier=body.safety_identifier,
            approvals_elsewhere=tools.approvals_elsewhere,
        ),
        key=key,
        operation=key or uuid.uuid4().hex,
    )
    head = previous
    if body.conversation_id is not None:
        head = await view.head(body.conversation_id)
    if (going_on := await _go_on(view, request, head, whole=not named)) is not None:
        return going_on
    refuse_unanswered(named is not None, said.entries)
    before, message, after = split(rounds(said.entries), "input")
    destination = await _destination(view, body, before, request.operation)
    if destination is None:
        destination = await _unnamed(view, request, before, "response")
    idle = _idle_time(view, body) if body.conversation_id is None else None
    return await _accept(view, request, destination, (message, after), idle)


async def _go_on(
    view: TenantView, request: _Request, head: str | None, *, whole: bool
) -> Enqueued | None:
    """Continue the turn whose calls a request answers; None if it answers none.

    Args:
        view: The caller's view.
        request: The request.
        head: The turn that it continues by name, if it does.
        whole: Whether it contains the whole conversation, and not only new messages.
    """
    answered = await answered_by(view, request.entries, named=head, whole=whole)
    if answered is None:
        return None
    body = request.body
    following = Following(
        agent=body.model,
        metadata=body.metadata or {},
        labels=request.labels,
        stream=bool(body.stream),
        tools=request.tools,
        options=request.decided.options,
    )
    if (part := await go_on(view, answered, following)) is None:
        return None
    return Enqueued(turn_id=answered.turn.turn_id, decided=request.decided, part=part)


async def _accept(
    view: TenantView,
    request: _Request,
    destination: Destination,
    said: tuple[InputMessage, Sequence[Entry]],
    idle_time: float | None,
) -> Enqueued:
    """Accept a turn.

    Args:
        view: The caller's view.
        request: The request.
        destination: The conversation in which the turn will run.
        said: The message to answer, and the calls and outputs that follow it.
        idle_time: See `NewMessage`.
    """
    body, (message, after) = request.body, said
    labels, tools = request.labels, request.tools
    more: dict[str, Any] = {}
    if isinstance(destination, Unnamed) and destination.before:
        more["seeded"] = len(destination.before)
    if tools.client is not None:
        # These identify a later request as the turn's continuation.
        more |= {"opening": opening_of(request.entries), "said": len(request.entries)}
    turn_id = await accept(
        view,
        NewMessage(
            agent=body.model,
            text=message.text,
            attached=message.attached,
            idempotency_key=request.operation,
            digest=digest_of(body, request.key),
            user_id=body.safety_identifier or body.user,
            metadata=body.metadata or {},
            labels=replace(labels, **more) if more else labels,
            stream=bool(body.stream),
            options=request.decided.options,
            client_tools=tools.client,
            prior=await messages_of(view, after) if after else (),
            idle_time=idle_time,
        ),
        destination,
    )
    return Enqueued(turn_id=turn_id, decided=request.decided, new=request.key is None)


async def _destination(
    view: TenantView, body: CreateResponse, before: Sequence[Entry], operation: str
) -> Destination | None:
    """The conversation that a request names, directly or by a response; None if it names none."""
    previous = _previous(body)
    destination: Destination
    if previous is not None:
        kept = body.store is not False
        # A turn with store=false runs in a copy, which is deleted with it.
        continued = await continue_turn(view, previous, operation, always_copy=not kept)
        destination, internal = continued, continued.turn.conversation_id
    elif body.conversation_id is not None:
        await view.conversation(body.conversation_id)
        destination = Existing(conversation_id=body.conversation_id)
        internal = view.internal(body.conversation_id)
    else:
        return None
    if before and await not_in(view, internal, before):
        raise InvalidRequest(
            "the conversation already has the earlier messages: input must be the user's new "
            "message; add others with POST /v1/conversations/{id}/items",
            param="input",
        )
    return destination


def _previous(body: CreateResponse) -> str | None:
    """The turn that a request continues."""
    response = body.previous_response_id
    return None if response is None else turn_id_of(response)


async def enqueue_chat(view: TenantView, body: CreateChat, key: str | None) -> Enqueued:
    """Accept a chat completion.

    Raises:
        AgentAPIError: It is refused, or cannot be stored now.
    """
    said = from_chat(body.messages)
    conversation = (body.metadata or {}).get(CONVERSATION)
    request = _Request(
        body=body,
        entries=said.entries,
        tools=ending_at_once(
            tools_of(body.tools, body.tool_choice, body.parallel_tool_calls, nested=True)
        ),
        decided=await decide(
            view.gateway.agents, body.model, asked_by_chat(body, said.instructions)
        ),
        labels=Labels(
            implicit=conversation is None,
            user=body.user,
            safety_identifier=body.safety_identifier,
            # Chat completions cannot express them.
            approvals_elsewhere=True,
        ),
        key=key,
        operation=key or uuid.uuid4().hex,
    )
    head = await view.head(conversation) if conversation is not None else None
    going_on = await _go_on(view, request, head, whole=conversation is None)
    if going_on is not None:
        return going_on
    before, message, after = split(rounds(said.entries), "messages")
    destination: Destination
    if conversation is not None:
        # The conversation already has the history, so only the request's last message is new.
        destination, idle = Existing(conversation_id=conversation), None
    else:
        destination = await _unnamed(view, request, before, "chat")
        idle = _idle_time(view, body)
    made = await _accept(view, request, destination, (message, after), idle)
    if body.store:
        # After the turn: if the answer is lost, the client repeats the request with its key.
        await view.gateway.stored_chats.add(view.tenant, made.turn_id)
    return made


async def _unnamed(
    view: TenantView, request: _Request, before: Sequence[Entry], route: str
) -> Unnamed:
    """A conversation without a name that starts with the earlier entries."""
    body = request.body
    return Unnamed(
        conversation_id=_name(view, route, request.key),
        before=await messages_of(view, before) if before else (),
        operation=request.operation,
        user_id=body.safety_identifier or body.user,
        idle_time=_idle_time(view, body),
    )


def _idle_time(view: TenantView, body: CreateResponse | CreateChat) -> float:
    """Seconds that a conversation without a name is kept after its turns."""
    settings = view.gateway.settings
    return settings.unstored_retention if body.store is False else settings.turn_retention


def _name(view: TenantView, route: str, key: str | None) -> str:
    """The id of a new conversation. A repeat with the same key gets the same id."""
    return new_conversation_id(None if key is None else f"{view.tenant}:{route}:{key}")


async def wait_for_end(view: TenantView, made: Enqueued, key: str | None) -> Part:
    """Wait until a turn ends or asks its client.

    Raises:
        Stopping: The gateway shuts down in the meantime.
        Unfinished: The turn takes longer than a request may wait.
    """
    seconds = view.gateway.settings.gateway_wait
    turn = await view.wait(
        made.turn_id, seconds, lambda turn: len(ends_of(turn)) > made.part, new=made.new
    )
    part = await read_part(view, turn, made.part)
    if part.status.ended:
        return part
    response = response_id(made.turn_id, made.part)
    where = f"the turn continues: read its result with GET /v1/responses/{response}"
    if view.gateway.follower.stopping:
        # With a key, a repeat finds this turn. Without one, it would start another.
        raise Stopping(f"the gateway is shutting down; {where}", retry=key is not None)
    raise Unfinished(f"the turn has not ended within AGENTAPI_GATEWAY_WAIT; {where}", retry=False)


class Unfinished(GatewayError):
    """A turn has not ended within the time that a request may take."""

    status = 504
    kind = "server_error"
    code = "turn_timeout"
