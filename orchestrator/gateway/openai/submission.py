"""From OpenAI's requests to turns, for responses and chat completions alike."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from agentapi.turns import Turn
from orchestrator.gateway.conversations.forks import continue_turn
from orchestrator.gateway.http.errors import GatewayError, InvalidRequest, Stopping
from orchestrator.gateway.ids import new_conversation_id, response_id, turn_id_of
from orchestrator.gateway.openai.input import Said, from_chat, from_input, split
from orchestrator.gateway.openai.request_bodies import CreateChat, CreateResponse
from orchestrator.gateway.turn_labels import Labels
from orchestrator.gateway.turn_submission import (
    Begun,
    Destination,
    Existing,
    NewMessage,
    accept,
    digest_of,
)
from orchestrator.gateway.view import TenantView

CONVERSATION: str = "conversation_id"
"""The name in a chat completion's metadata that says which conversation it continues."""


async def enqueue_response(view: TenantView, body: CreateResponse, key: str | None) -> str:
    """Accept a response; returns its turn's id.

    Raises:
        AgentAPIError: It is not acceptable, or not now.
    """
    before, said = split(from_input(body.input), "input")
    operation = key or uuid.uuid4().hex
    user = body.safety_identifier or body.user
    destination = await _destination(view, body, before, operation)
    if destination is None:
        name = new_conversation_id(_name(view, "response", key))
        destination = _begun(name, before, operation, user)
    return await accept(
        view,
        NewMessage(
            agent=body.model,
            text=said.text,
            attached=said.attached,
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
    view: TenantView, body: CreateResponse, before: Sequence[Said], operation: str
) -> Destination | None:
    """The conversation that a request names, by itself or by a response; None when it does not."""
    previous = _previous(body)
    if body.conversation_id is None and previous is None:
        return None
    if before:
        raise InvalidRequest(
            "what was said before is in the conversation already: input is the user's new "
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
        AgentAPIError: It is not acceptable, or not now.
    """
    before, said = split(from_chat(body.messages), "messages")
    operation = key or uuid.uuid4().hex
    metadata: Mapping[str, str] = body.metadata or {}
    named = CONVERSATION in metadata
    user = body.safety_identifier or body.user
    destination: Destination
    if named:
        # The history is here: what the client repeats of it is not new.
        destination, before = Existing(conversation_id=metadata[CONVERSATION]), ()
    else:
        destination = _begun(new_conversation_id(_name(view, "chat", key)), before, operation, user)
    return await accept(
        view,
        NewMessage(
            agent=body.model,
            text=said.text,
            attached=said.attached,
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


def _begun(conversation_id: str, before: Sequence[Said], operation: str, user: str | None) -> Begun:
    return Begun(
        conversation_id=conversation_id,
        before=[said.message() for said in before],
        operation=operation,
        user_id=user,
    )


def _name(view: TenantView, route: str, key: str | None) -> str | None:
    """What makes a repeat with the same key meet the first request's conversation."""
    return None if key is None else f"{view.tenant}:{route}:{key}"


async def wait_for_end(view: TenantView, turn_id: str, key: str | None) -> Turn:
    """Wait for a turn's end.

    Raises:
        Stopping: The gateway shuts down meanwhile.
        Unfinished: The turn takes longer than a request may.
    """
    turn = await view.wait(turn_id, view.gateway.settings.gateway_wait)
    if turn.status.ended:
        return turn
    where = f"the turn goes on: GET /v1/responses/{response_id(turn_id)} has its result"
    if view.gateway.follower.stopping:
        # With a key, a repeat meets this very turn; without one it would be another.
        raise Stopping(f"the gateway is shutting down; {where}", retry=key is not None)
    raise Unfinished(f"the turn has not ended within AGENTAPI_GATEWAY_WAIT; {where}", retry=False)


class Unfinished(GatewayError):
    """A turn has not ended within the time that a request may take."""

    status = 504
    kind = "server_error"
    code = "turn_timeout"
