"""`/v1/chat/completions/{id}`: chat completions that were created with ``store=true``."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.errors import TurnNotFound
from agentapi.turns import Turn, TurnStatus
from orchestrator.gateway.conversations.deletion import delete_turn
from orchestrator.gateway.dependencies import View
from orchestrator.gateway.http.errors import InvalidRequest, NotFound
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.ids import part_of_chat, turn_id_from, turn_id_of_chat
from orchestrator.gateway.openai.items import list_object, page
from orchestrator.gateway.openai.objects import chat_id, chat_object
from orchestrator.gateway.openai.parts import Part, ends_of, read_part
from orchestrator.gateway.openai.request_bodies import UpdateChat
from orchestrator.gateway.openai.responses import After, Limit, Order
from orchestrator.gateway.openai.schemas import ChatObject, DeletedChat, ListOf, StoredMessage
from orchestrator.gateway.turn_labels import metadata_of, relabelled
from orchestrator.gateway.view import TenantView

router = APIRouter(prefix="/v1/chat/completions", tags=["openai"], route_class=StrictRoute)

MOST_SEARCHED: Final = 1_000
"""Maximum completions that one request examines, however many match its filters."""

_METADATA = re.compile(r"metadata\[(.{1,64})\]")


class ChatsObject(ListOf[ChatObject]):
    """A page of chat completions."""


class StoredMessages(ListOf[StoredMessage]):
    """A page of messages."""


class StoredChatObject(ChatObject):
    """A stored chat completion."""

    metadata: dict[str, Any]


@router.get("", response_model=None, responses={200: {"model": ChatsObject}})
async def list_chats(
    request: Request,
    view: View,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
    model: Annotated[str | None, Query(description="Only completions of this agent.")] = None,
) -> dict[str, Any]:
    """List stored chat completions. `metadata[NAME]=VALUE` selects some of them."""
    wanted = {
        match[1]: value
        for name, value in request.query_params.items()
        if (match := _METADATA.fullmatch(name))
    }
    begin = None
    if after is not None:
        begin = turn_id_from(after)
        if not await view.gateway.stored_chats.has(view.tenant, begin):
            raise InvalidRequest(
                f"there is no chat completion {after!r} in the list", param="after"
            )
    found: list[dict[str, Any]] = []
    searched = 0
    ids = view.gateway.stored_chats.ids(view.tenant, begin, up=order == "asc")
    async with aclosing(ids) as turns:
        async for turn_id in turns:
            if len(found) == limit or searched == MOST_SEARCHED:
                return list_object(found, more=True)
            searched += 1
            turn = await _completed(view, turn_id)
            if turn is not None and model in (None, turn.agent) and _has(turn, wanted):
                found.append(_to_json(await read_part(view, turn, len(ends_of(turn)))))
    return list_object(found, more=False)


@router.get(
    "/{completion}",
    response_model=None,
    responses={200: {"model": StoredChatObject}, **errors(404)},
)
async def get_chat(completion: str, view: View) -> dict[str, Any]:
    """Retrieve a stored chat completion."""
    turn = await _stored(view, completion)
    return _to_json(await read_part(view, turn, part_of_chat(completion)))


@router.post(
    "/{completion}",
    response_model=None,
    responses={200: {"model": StoredChatObject}, **errors(404)},
)
async def update_chat(completion: str, body: UpdateChat, view: View) -> dict[str, Any]:
    """Replace the metadata of a stored chat completion."""
    turn, number = await _stored(view, completion), part_of_chat(completion)
    # Fails if there is no such part.
    await read_part(view, turn, number)
    stored = turn.parts.get(number, {}) if number else turn.metadata
    metadata = relabelled(stored, body.metadata or {})
    changed = await view.gateway.conversations.relabel(
        turn.conversation_id, turn.turn_id, metadata, number
    )
    if not changed:
        # It was deleted after it was read.
        raise _missing(completion)
    return _to_json(await read_part(view, await _stored(view, completion), number))


@router.get(
    "/{completion}/messages",
    response_model=None,
    responses={200: {"model": StoredMessages}, **errors(404)},
)
async def list_messages(
    completion: str, view: View, after: After = None, limit: Limit = 20, order: Order = "asc"
) -> dict[str, Any]:
    """List the messages of a stored chat completion's request."""
    turn = await _stored(view, completion)
    said: list[Message] = [*await view.seeds(turn), UserMessage(content=turn.input)]
    shown = [
        _message(f"{chat_id(turn.turn_id)}-{number}", message)
        for number, message in enumerate(said)
        if isinstance(message, UserMessage | AssistantMessage)
    ]
    return page(shown, after=after, limit=limit, order=order, what="message")


@router.delete(
    "/{completion}",
    response_model=None,
    responses={200: {"model": DeletedChat}, **errors(404, 409)},
)
async def delete_chat(completion: str, view: View) -> dict[str, Any]:
    """Delete a stored chat completion."""
    turn = await _stored(view, completion)
    await delete_turn(view, turn)
    await view.gateway.stored_chats.remove(view.tenant, turn.turn_id)
    return {"id": completion, "object": "chat.completion.deleted", "deleted": True}


async def _completed(view: TenantView, turn_id: str) -> Turn | None:
    try:
        turn = await view.turn(turn_id)
    except TurnNotFound:
        return None
    return turn if turn.status is TurnStatus.COMPLETED else None


async def _stored(view: TenantView, completion: str) -> Turn:
    turn_id = turn_id_of_chat(completion)
    known = await view.gateway.stored_chats.has(view.tenant, turn_id)
    turn = await _completed(view, turn_id) if known else None
    if turn is None:
        raise _missing(completion)
    return turn


def _missing(completion: str) -> NotFound:
    return NotFound(
        f"there is no stored chat completion {completion!r}: it was created without store=true, "
        "was deleted, or ended longer than AGENTAPI_TURN_RETENTION ago",
        code="chat_completion_not_found",
    )


def _has(turn: Turn, wanted: dict[str, str]) -> bool:
    metadata = metadata_of(turn)
    return all(metadata.get(name) == value for name, value in wanted.items())


def _to_json(part: Part) -> dict[str, Any]:
    return {**chat_object(part), "metadata": part.metadata}


def _message(message_id: str, message: UserMessage | AssistantMessage) -> dict[str, Any]:
    return {"id": message_id, "role": message.role, "content": message.content, "refusal": None}
