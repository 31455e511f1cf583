"""The routers of all pages, in the order in which their routes are tried."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from orchestrator.gateway.console import (
    approvals,
    assets,
    conversation,
    conversation_list,
    fleet,
    sending,
    sign_in,
    turn,
    turn_list,
)

CONSOLE: Final[tuple[APIRouter, ...]] = (
    assets.router,
    sign_in.router,
    fleet.router,
    conversation_list.router,
    conversation.router,
    sending.router,
    turn_list.router,
    turn.router,
    approvals.router,
)
