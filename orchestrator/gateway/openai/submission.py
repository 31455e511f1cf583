"""Accepts the turns of OpenAI's requests: responses and chat completions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from agentapi.turns import Turn
from orchestrator.gateway.conversations.forks import continue_turn
from orchestrator.gateway.http.errors import GatewayError, InvalidRequest, Stopping
from orchestrator.gateway.ids import new_conversation_id, response_id, turn_id_of
from orchestrator.gateway.openai.input import InputMessage, from_chat, from_input, split
from orchestrator.gateway.openai.request_bodies import CreateChat, CreateResponse
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


async def enqueue_response(view: TenantView, body: CreateResponse, key: str | None) -> str:
    """Accept a response; returns its turn's id.

    Raises:
        AgentAPIError: It is refused, or cannot be stored now.
    """
    before, message = split(from_input(body.input), "input")
    operation = key or uuid.uuid4().hex
    user = body.safety_identifier or body.user
    destination = await _destination(view, body, before, operation)
    if destination is None:
        name = _name(view, "response", key)
        destination = _unnamed(name, before, operation, user)
    return await accept(
        view,
        NewMessage(
            agent=body.model,
            text=message.text,
            attached=message.attached,
            idempotency_key=operation,
            digest=digest_of(body, key),
            user_id=user,
            metadata=body.metadata or {},
            labels=Labels(
                background=bool(body.background),
                implicit=body.conversation_id is None,
                previous=_previous(body),
                seeded=len(before),
                user=body.user,
                safety_identifier=body.safety_identifier,
            ),
            stream=bool(body.stream),
        ),
        destination,
    )


async def _destination(
    view: TenantView, body: CreateResponse, before: Sequence[InputMessage], operation: str
) -> Destination | None:
    """The conversation that a request names, directly or by a response; None if it names none."""
    previous = _previous(body)
    if body.conversation_id is None and previous is None:
        return None
    if before:
        raise InvalidRequest(
            "the conversation already has the earlier messages: input must be the user's new "
            "message; POST /v1/conversations/{id}/items adds others",
            param="input",
        )
    if previous is not None:
        return await continue_turn(view, previous, operation)
    await view.conversation(body.conversation_id or "")
    return Existing(conversation_id=body.conversation_id or "")


def _previous(body: CreateResponse) -> str | None:
    """The turn that a request continues."""
    response = body.previous_response_id
    return None if response is None else turn_id_of(response)


async def enqueue_chat(view: TenantView, body: CreateChat, key: str | None) -> str:
    """Accept a chat completion; returns its turn's id.

    Raises:
        AgentAPIError: It is refused, or cannot be stored now.
    """
    before, message = split(from_chat(body.messages), "messages")
    operation = key or uuid.uuid4().hex
    metadata: Mapping[str, str] = body.metadata or {}
    named = CONVERSATION in metadata
    user = body.safety_identifier or body.user
    destination: Destination
    if named:
        # The conversation has the history: only the last message of the request is new.
        destination, before = Existing(conversation_id=metadata[CONVERSATION]), ()
    else:
        name = _name(view, "chat", key)
        destination = _unnamed(name, before, operation, user)
    return await accept(
        view,
        NewMessage(
            agent=body.model,
            text=message.text,
            attached=message.attached,
            idempotency_key=operation,
            digest=digest_of(body, key),
            user_id=user,
            metadata=metadata,
            labels=Labels(
                implicit=not named,
                seeded=len(before),
                user=body.user,
                safety_identifier=body.safety_identifier,
            ),
            stream=bool(body.stream),
        ),
        destination,
    )


def _unnamed(
    conversation_id: str, before: Sequence[InputMessage], operation: str, user: str | None
) -> Unnamed:
    return Unnamed(
        conversation_id=conversation_id,
        before=[message.message() for message in before],
        operation=operation,
        user_id=user,
    )


def _name(view: TenantView, route: str, key: str | None) -> str:
    """The id of a new conversation. A repeat with the same key gets the same id."""
    return new_conversation_id(None if key is None else f"{view.tenant}:{route}:{key}")


async def wait_for_end(view: TenantView, turn_id: str, key: str | None) -> Turn:
    """Wait for a turn's end.

    Raises:
        Stopping: The gateway shuts down in the meantime.
        Unfinished: The turn takes longer than a request may.
    """
    turn = await view.wait(turn_id, view.gateway.settings.gateway_wait)
    if turn.status.ended:
        return turn
    where = f"the turn goes on: GET /v1/responses/{response_id(turn_id)} has its result"
    if view.gateway.follower.stopping:
        # With a key, a repeat finds this turn. Without one, it would start another.
        raise Stopping(f"the gateway is shutting down; {where}", retry=key is not None)
    raise Unfinished(f"the turn has not ended within AGENTAPI_GATEWAY_WAIT; {where}", retry=False)


class Unfinished(GatewayError):
    """A turn has not ended within the time that a request may take."""

    status = 504
    kind = "server_error"
    code = "turn_timeout"
