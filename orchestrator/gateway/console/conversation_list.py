"""The page with the list of conversations."""

from __future__ import annotations

import uuid
from typing import Annotated, Final

from fastapi import Query, Request, Response

from orchestrator.gateway.console.entries import conversation_address, conversation_entry
from orchestrator.gateway.console.filters import ConversationFilters
from orchestrator.gateway.console.pages import go_to, is_fragment, page
from orchestrator.gateway.console.routing import View, console_router, needs
from orchestrator.gateway.console.security import ROOT
from orchestrator.gateway.tenants.scopes import Scope

router = console_router()

PATH: Final = f"{ROOT}/conversations"
PAGE: Final = 50

BUSY: Final = (("", "any"), ("yes", "has open turns"), ("no", "has none"))


@router.get("/conversations")
@needs(Scope.READ)
async def conversation_list(
    request: Request, view: View, filters: Annotated[ConversationFilters, Query()]
) -> Response:
    """Conversations, newest first."""
    if filters.id:
        found_id = await view.conversation_id_of(filters.id)
        return go_to(request, conversation_address(found_id))
    found = await view.conversations(
        filters.query(), PAGE, filters.cursor, fresh=not is_fragment(request)
    )
    return page(
        request,
        "conversations.html",
        fragment="_conversations.html",
        filters=filters,
        busy=BUSY,
        gap=view.gap(found),
        conversations=[conversation_entry(view, each) for each in found.items],
        agents=view.gateway.agents.known,
        operation=uuid.uuid4().hex,
        may_change=view.viewer.may(Scope.TURNS, Scope.OPERATE),
        here=filters.address(PATH),
        first=filters.address(PATH, cursor=None) if filters.cursor else None,
        next=filters.address(PATH, cursor=found.cursor) if found.cursor else None,
    )
