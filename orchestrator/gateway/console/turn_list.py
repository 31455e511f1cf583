"""The page with the list of turns."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Query, Request, Response

from agentapi.turns import TurnStatus
from orchestrator.gateway.console.entries import turn_entry
from orchestrator.gateway.console.filters import TurnFilters
from orchestrator.gateway.console.pages import go_to, is_fragment, page
from orchestrator.gateway.console.routing import View, console_router, needs
from orchestrator.gateway.console.security import ROOT
from orchestrator.gateway.tenants.scopes import Scope

router = console_router()

PATH: Final = f"{ROOT}/turns"
PAGE: Final = 50

STATUSES: Final = (
    ("", "any"),
    ("open", "open"),
    *((each.value, each.value) for each in TurnStatus),
)

_TURN_ID: Final = re.compile(r"\d{3}-[0-9a-f]{32}")


@router.get("/turns")
@needs(Scope.READ)
async def turn_list(
    request: Request, view: View, filters: Annotated[TurnFilters, Query()]
) -> Response:
    """Turns, newest first."""
    if filters.id and _TURN_ID.fullmatch(filters.id):
        return go_to(request, f"{PATH}/{filters.id}")
    if filters.error:
        # The text of an error may quote messages, and a search in it would reveal them.
        view.viewer.check(Scope.CONTENT)
    query = filters.query()
    if filters.conversation:
        named = await view.conversation_id_of(filters.conversation)
        query = replace(query, conversation_id=named)
    found = await view.turns(query, PAGE, filters.cursor, fresh=not is_fragment(request))
    return page(
        request,
        "turns.html",
        fragment="_turns.html",
        filters=filters,
        statuses=STATUSES,
        chosen=filters.status[0] if len(filters.status) == 1 else "",
        id_unknown=filters.id is not None,
        gap=view.gap(found),
        turns=[turn_entry(view, turn) for turn in found.items],
        here=filters.address(PATH),
        first=filters.address(PATH, cursor=None) if filters.cursor else None,
        next=filters.address(PATH, cursor=found.cursor) if found.cursor else None,
    )
