"""The pages of one conversation."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Query, Request, Response

from agentapi.conversation.messages import UserMessage
from agentapi.errors import UnreadableRecord
from agentapi.ids import MAX_CONVERSATION_ID
from agentapi.stores import ConversationSummary, TurnQuery
from agentapi.stores.conversations import END, StoredMessage
from orchestrator.gateway.console.entries import (
    conversation_address,
    conversation_entry,
    turn_entry,
)
from orchestrator.gateway.console.filters import address
from orchestrator.gateway.console.messages import PICTURES, message_entries, message_entry
from orchestrator.gateway.console.pages import is_fragment, page
from orchestrator.gateway.console.routing import View, console_router, needs
from orchestrator.gateway.console.security import HEADERS, ROOT
from orchestrator.gateway.console.view import ConsoleView
from orchestrator.gateway.conversations.history import History
from orchestrator.gateway.http.errors import NotFound
from orchestrator.gateway.tenants.scopes import Scope

router = console_router()

MESSAGES: Final = 30
MESSAGES_BYTES: Final = 262_144
"""Maximum messages on a page, and their bytes."""

TURNS: Final = 20

_POSITION = Query(ge=0, le=2**53)

Id = Annotated[str, Query(min_length=1, max_length=MAX_CONVERSATION_ID)]


@router.get("/conversation")
@needs(Scope.READ)
async def conversation_page(
    request: Request,
    view: View,
    id: Id,
    before: Annotated[int | None, _POSITION] = None,
) -> Response:
    """A conversation: its state, its messages, and its turns."""
    return await show(request, view, id, before=before)


async def show(
    request: Request,
    view: ConsoleView,
    conversation_id: str,
    *,
    before: int | None = None,
    status: int = 200,
    **form: Any,
) -> Response:
    """The page of a conversation.

    Args:
        request: The request.
        view: The viewer's view.
        conversation_id: Its id in Redis.
        before: The position before which the page's messages end; the end when None.
        status: The HTTP status.
        form: The content of the message form after a refused message.
    """
    found = await view.conversation(conversation_id)
    query = TurnQuery(conversation_id=conversation_id)
    turns = await view.turns(query, TURNS, fresh=not is_fragment(request))
    here = conversation_address(conversation_id)
    content: dict[str, Any] = {"messages": [], "summary": None, "unreadable": None, "older": None}
    if view.viewer.content:
        content |= await _content(view, conversation_id, found, before)
    return page(
        request,
        "conversation.html",
        fragment="_conversation.html",
        status=status,
        conversation=conversation_entry(view, found),
        turns=[turn_entry(view, turn) for turn in turns.items],
        all_turns=address(f"{ROOT}/turns", {"conversation": conversation_id}),
        more_turns=turns.cursor is not None,
        here=here if before is None else f"{here}&before={before}",
        newest=here if before is not None else None,
        agents=view.gateway.agents.known,
        operation=uuid.uuid4().hex,
        may_change=view.viewer.may(Scope.TURNS, Scope.OPERATE),
        **content,
        **{"message": "", "agent": found.agent or "", "refused": None, **form},
    )


async def _content(
    view: ConsoleView, conversation_id: str, found: ConversationSummary, before: int | None
) -> dict[str, Any]:
    """Messages and summary, for viewers who may see them."""
    summary = await view.gateway.call(lambda o: o.store.summary(conversation_id))
    read: dict[str, Any] = {"summary": summary if summary.text else None}
    last = END if before is None else before - 1
    try:
        messages = await _messages(view, conversation_id, found, max(0, last - MESSAGES), last)
    except UnreadableRecord as error:
        return {**read, "unreadable": str(error)}
    if messages and messages[0].position > 0:
        older = f"{conversation_address(conversation_id)}&before={messages[0].position}"
        read["older"] = older
    return {**read, "messages": message_entries(conversation_id, messages)}


async def _messages(
    view: ConsoleView, conversation_id: str, found: ConversationSummary, first: int, last: int
) -> list[StoredMessage]:
    """The newest messages between two positions, oldest first, at most one page."""
    # The script checks the conversation's owner again, because it may have changed.
    history = History(view.gateway.conversations, conversation_id, found.tenant_id or "")
    if last == END:
        first, last = max(0, found.messages - MESSAGES), END
    answer = await history.piece(first, last, up=False, most=MESSAGES_BYTES)
    return [] if answer is None else answer[1][:MESSAGES][::-1]


@router.get("/conversation/message")
@needs(Scope.CONTENT)
async def message_page(
    request: Request, view: View, id: Id, at: Annotated[int, _POSITION]
) -> Response:
    """A message in full."""
    found = await view.conversation(id)
    kept = await _message(view, id, found, at)
    return page(
        request,
        "message.html",
        conversation=conversation_entry(view, found),
        message=message_entry(id, kept, begins_turn=True),
    )


@router.get("/conversation/attachment")
@needs(Scope.CONTENT)
async def attachment(
    view: View,
    id: Id,
    at: Annotated[int, _POSITION],
    name: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$")],
) -> Response:
    """An image or a file of a message."""
    kept = await _message(view, id, await view.conversation(id), at)
    attachments = kept.message.attachments if isinstance(kept.message, UserMessage) else ()
    known = next((each for each in attachments if each.blob == name), None)
    blobs = await view.gateway.call(lambda o: o.store.blobs(id, [name])) if known else {}
    if known is None or name not in blobs:
        raise NotFound("there is no such image or file")
    headers = {**HEADERS, "content-security-policy": "default-src 'none'; sandbox"}
    media_type = "application/octet-stream"
    if known.media_type in PICTURES:
        media_type = known.media_type or media_type
    else:
        # Never shown by the browser, because it may be a page with a script.
        shown = quote(known.name or "attachment", safe="")
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{shown}"
    return Response(blobs[name], media_type=media_type, headers=headers)


async def _message(
    view: ConsoleView, conversation_id: str, found: ConversationSummary, at: int
) -> StoredMessage:
    history = History(view.gateway.conversations, conversation_id, found.tenant_id or "")
    answer = await history.piece(at, at)
    if answer is None or not answer[1]:
        raise NotFound("there is no such message: the history was deleted or reset")
    return answer[1][0]
