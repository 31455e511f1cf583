"""`/v1/conversations`: histories that outlive responses."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body

from agentapi.conversation.messages import AssistantMessage
from agentapi.stores.conversations import ConversationRecord
from orchestrator.gateway.conversations import deletion
from orchestrator.gateway.dependencies import View
from orchestrator.gateway.http.errors import InvalidRequest, NotFound
from orchestrator.gateway.http.json_response import OrjsonResponse
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.ids import new_conversation_id
from orchestrator.gateway.openai.given_back import messages_of
from orchestrator.gateway.openai.input import from_items
from orchestrator.gateway.openai.item_reader import Found
from orchestrator.gateway.openai.items import items_of, page
from orchestrator.gateway.openai.request_bodies import (
    CreateConversation,
    CreateItems,
    UpdateConversation,
)
from orchestrator.gateway.openai.responses import After, Include, Limit, Order
from orchestrator.gateway.openai.schemas import (
    ConversationObject,
    DeletedConversation,
    ItemObject,
    ListOf,
)
from orchestrator.gateway.view import TenantView

router = APIRouter(prefix="/v1/conversations", tags=["openai"], route_class=StrictRoute)


_CONVERSATION: Final[dict[int | str, dict[str, Any]]] = {200: {"model": ConversationObject}}
_ITEM: Final[dict[int | str, dict[str, Any]]] = {200: {"model": ItemObject}}
_ITEMS: Final[dict[int | str, dict[str, Any]]] = {200: {"model": ListOf[ItemObject]}}


@router.post("", response_model=None, responses=_CONVERSATION)
async def create_conversation(
    view: View, body: Annotated[CreateConversation | None, Body()] = None
) -> dict[str, Any]:
    """Create a conversation."""
    body = body or CreateConversation()
    conversation_id = new_conversation_id()
    entries = from_items(body.items or (), "items").conversation("items")
    messages = await messages_of(view, entries)
    made = await view.append(conversation_id, messages, make=True, metadata=body.metadata or {})
    return _to_json(conversation_id, made)


@router.get("/{conversation}", response_model=None, responses={**_CONVERSATION, **errors(404)})
async def get_conversation(conversation: str, view: View) -> dict[str, Any]:
    """Retrieve a conversation."""
    return _to_json(conversation, await view.conversation(conversation))


@router.post("/{conversation}", response_model=None, responses={**_CONVERSATION, **errors(404)})
async def update_conversation(
    conversation: str, body: UpdateConversation, view: View
) -> dict[str, Any]:
    """Replace a conversation's metadata."""
    changed = await view.open(conversation, make=False, metadata=body.metadata or {})
    return _to_json(conversation, changed)


@router.delete(
    "/{conversation}",
    response_model=None,
    responses={200: {"model": DeletedConversation}, **errors(404, 409)},
)
async def delete_conversation(conversation: str, view: View) -> dict[str, Any]:
    """Delete a conversation and its turns. Unfinished turns are cancelled first."""
    await deletion.delete_conversation(view, conversation)
    return {"id": conversation, "object": "conversation.deleted", "deleted": True}


@router.post("/{conversation}/items", response_model=None, responses={**_ITEMS, **errors(404)})
async def create_items(
    conversation: str, body: CreateItems, view: View, include: Include = None
) -> dict[str, Any]:
    """Append messages to a conversation."""
    messages = await messages_of(view, from_items(body.items, "items").conversation("items"))
    await view.append(conversation, messages, make=False)
    items = [found.item for found in items_of(messages)]
    return page(items, after=None, limit=len(items) or 1, order="asc")


@router.get("/{conversation}/items", response_model=None, responses={**_ITEMS, **errors(404)})
async def list_items(
    conversation: str,
    view: View,
    after: After = None,
    limit: Limit = 20,
    order: Order = "desc",
    include: Include = None,
) -> OrjsonResponse:
    """List the items of a conversation."""
    await view.conversation(conversation)
    found = await view.items(conversation).page(after=after, limit=limit, order=order)
    return OrjsonResponse(found)


@router.get("/{conversation}/items/{item}", response_model=None, responses={**_ITEM, **errors(404)})
async def get_item(
    conversation: str, item: str, view: View, include: Include = None
) -> dict[str, Any]:
    """Retrieve an item of a conversation."""
    return (await _find(view, conversation, item)).item.item


@router.delete(
    "/{conversation}/items/{item}",
    response_model=None,
    responses={**_CONVERSATION, **errors(404)},
)
async def delete_item(conversation: str, item: str, view: View) -> dict[str, Any]:
    """Remove a message from a conversation."""
    removed = False
    while not removed:
        found = await _find(view, conversation, item)
        message = found.kept.message
        calls = isinstance(message, AssistantMessage) and message.tool_calls
        if calls or message.turn_id is None:
            raise InvalidRequest(
                "the item is part of a tool call and cannot be deleted alone: delete the "
                "conversation, or keep the item",
                param="item_id",
            )
        # Fails if another message was just removed and this one moved; then find it again.
        removed = await view.remove(conversation, found)
    return _to_json(conversation, await view.conversation(conversation))


async def _find(view: TenantView, conversation: str, item: str) -> Found:
    await view.conversation(conversation)
    if (found := await view.items(conversation).find(item)) is not None:
        return found
    raise NotFound(f"there is no item {item!r} in the conversation", code="item_not_found")


def _to_json(conversation_id: str, conversation: ConversationRecord) -> dict[str, Any]:
    return {
        "id": conversation_id,
        "object": "conversation",
        "created_at": int(conversation.created_at),
        "metadata": dict(conversation.metadata),
    }
