"""The start page: what the fleet does now."""

from __future__ import annotations

from fastapi import Request, Response

from orchestrator.gateway.console.pages import page
from orchestrator.gateway.console.routing import View, console_router, needs
from orchestrator.gateway.tenants.scopes import Scope

router = console_router()


@router.get("")
@needs(Scope.READ)
async def fleet_page(request: Request, view: View) -> Response:
    """Workers, queues, rates, providers, and the newest failures."""
    return page(request, "fleet.html", fragment="_fleet.html")
