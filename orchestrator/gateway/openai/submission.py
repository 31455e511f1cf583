"""Accepts the turns of OpenAI's requests: responses and chat completions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
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
from orchestrator.gateway.openai.input import Entry, from_chat, from_input, split
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
    """A turn that was accepted, or goes on, and what of its request does not count.

    Attributes:
        part: The part of the turn that is the request's response.
    """

    turn_id: str
    decided: Decided
    part: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response to the request."""
        return {"x-response-id": response_id(self.turn_id, self.part), **self.decided.headers}


async def enqueue_response(view: TenantView, body: CreateResponse, key: str | None) -> Enqueued:
    """Accept a response.

    Raises:
        AgentAPIError: It is refused, or cannot be stored now.
    """
    said = from_input(body.input)
    tools = tools_of(body.tools, body.tool_choice, body.parallel_tool_calls, nested=False)
    asked = asked_by_response(body, said.instructions)
    decided = await decide(view.gateway.agents, body.model, asked)
    previous, named = _previous(body), body.previous_response_id or body.conversation_id
    labels = Labels(
        background=bool(body.background),
        implicit=body.conversation_id is None,
        previous=previous,
        user=body.user,
        safety_identifier=body.safety_identifier,
        approvals_elsewhere=tools.approvals_elsewhere,
    )
    head = previous
    if body.conversation_id is not None:
        head = await view.head(body.conversation_id)
    if (answered := await answered_by(view, said.entries, named=head, whole=not named)) is not None:
        following = Following(
            agent=body.model,
            metadata=body.metadata or {},
            labels=labels,
            stream=bool(body.stream),
            tools=tools,
            options=decided.options,
        )
        if (part := await go_on(view, answered, following)) is not None:
            return Enqueued(turn_id=answered.turn.turn_id, decided=decided, part=part)
    refuse_unanswered(named is not None, said.entries)
    before, message, after = split(rounds(said.entries), "input")
    operation = key or uuid.uuid4().hex
    user = body.safety_identifier or body.user
    destination = await _destination(view, body, before, operation)
    seeded = 0
    if destination is None:
        unnamed = await _unnamed(view, before, _name(view, "response", key), operation, body)
        destination, seeded = unnamed, len(unnamed.before)
    turn_id = await accept(
        view,
        NewMessage(
            agent=body.model,
            text=message.text,
            attached=message.attached,
            idempotency_key=operation,
            digest=digest_of(body, key),
            user_id=user,
            metadata=body.metadata or {},
            labels=replace(labels, seeded=seeded, **_opening(tools, said.entries)),
            stream=bool(body.stream),
            options=decided.options,
            client_tools=tools.client,
            prior=await messages_of(view, after),
            idle_time=_idle_time(view, body) if body.conversation_id is None else None,
        ),
        destination,
    )
    return Enqueued(turn_id=turn_id, decided=decided)


async def _destination(
    view: TenantView, body: CreateResponse, before: Sequence[Entry], operation: str
) -> Destination | None:
    """The conversation that a request names, directly or by a response; None if it names none."""
    previous = _previous(body)
    destination: Destination
    if previous is not None:
        kept = body.store is not False
        # A turn that is not to be stored runs in a copy, which goes with it.
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
            "message; POST /v1/conversations/{id}/items adds others",
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
    tools = ending_at_once(
        tools_of(body.tools, body.tool_choice, body.parallel_tool_calls, nested=True)
    )
    decided = await decide(view.gateway.agents, body.model, asked_by_chat(body, said.instructions))
    operation = key or uuid.uuid4().hex
    metadata: Mapping[str, str] = body.metadata or {}
    named = CONVERSATION in metadata
    labels = Labels(
        implicit=not named,
        user=body.user,
        safety_identifier=body.safety_identifier,
        # A chat completion has no words for them.
        approvals_elsewhere=True,
    )
    head = await view.head(metadata[CONVERSATION]) if named else None
    if (answered := await answered_by(view, said.entries, named=head, whole=not named)) is not None:
        following = Following(
            agent=body.model,
            metadata=metadata,
            labels=labels,
            stream=bool(body.stream),
            tools=tools,
            options=decided.options,
        )
        if (part := await go_on(view, answered, following)) is not None:
            return Enqueued(turn_id=answered.turn.turn_id, decided=decided, part=part)
    before, message, after = split(rounds(said.entries), "messages")
    destination: Destination
    seeded = 0
    if named:
        # The conversation has the history: only the last message of the request is new.
        destination = Existing(conversation_id=metadata[CONVERSATION])
    else:
        unnamed = await _unnamed(view, before, _name(view, "chat", key), operation, body)
        destination, seeded = unnamed, len(unnamed.before)
    turn_id = await accept(
        view,
        NewMessage(
            agent=body.model,
            text=message.text,
            attached=message.attached,
            idempotency_key=operation,
            digest=digest_of(body, key),
            user_id=body.safety_identifier or body.user,
            metadata=metadata,
            labels=replace(labels, seeded=seeded, **_opening(tools, said.entries)),
            stream=bool(body.stream),
            options=decided.options,
            client_tools=tools.client,
            prior=await messages_of(view, after),
            idle_time=None if named else _idle_time(view, body),
        ),
        destination,
    )
    if body.store:
        # Behind the turn: without an answer the client repeats the request, with its key.
        await view.gateway.stored_chats.add(view.tenant, turn_id)
    return Enqueued(turn_id=turn_id, decided=decided)


def _opening(tools: AskedTools, entries: Sequence[Entry]) -> dict[str, Any]:
    """Labels by which a later request is known as the turn's continuation."""
    if tools.client is None:
        return {}
    return {"opening": opening_of(entries), "said": len(entries)}


async def _unnamed(
    view: TenantView,
    before: Sequence[Entry],
    conversation_id: str,
    operation: str,
    body: CreateResponse | CreateChat,
) -> Unnamed:
    return Unnamed(
        conversation_id=conversation_id,
        before=await messages_of(view, before),
        operation=operation,
        user_id=body.safety_identifier or body.user,
        idle_time=_idle_time(view, body),
    )


def _idle_time(view: TenantView, body: CreateResponse | CreateChat) -> float:
    """Seconds that a conversation without a name outlives its turns."""
    settings = view.gateway.settings
    return settings.unstored_retention if body.store is False else settings.turn_retention


def _name(view: TenantView, route: str, key: str | None) -> str:
    """The id of a new conversation. A repeat with the same key gets the same id."""
    return new_conversation_id(None if key is None else f"{view.tenant}:{route}:{key}")


async def wait_for_end(view: TenantView, made: Enqueued, key: str | None) -> Part:
    """Wait until a turn ends or asks its client.

    Raises:
        Stopping: The gateway shuts down in the meantime.
        Unfinished: The turn takes longer than a request may.
    """
    seconds = view.gateway.settings.gateway_wait
    turn = await view.wait(made.turn_id, seconds, lambda turn: len(ends_of(turn)) > made.part)
    part = await read_part(view, turn, made.part)
    if part.status.ended:
        return part
    response = response_id(made.turn_id, made.part)
    where = f"the turn goes on: GET /v1/responses/{response} has its result"
    if view.gateway.follower.stopping:
        # With a key, a repeat finds this turn. Without one, it would start another.
        raise Stopping(f"the gateway is shutting down; {where}", retry=key is not None)
    raise Unfinished(f"the turn has not ended within AGENTAPI_GATEWAY_WAIT; {where}", retry=False)


class Unfinished(GatewayError):
    """A turn has not ended within the time that a request may take."""

    status = 504
    kind = "server_error"
    code = "turn_timeout"
