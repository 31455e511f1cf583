"""The routers of all pages, in the order in which their routes are tried."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from orchestrator.gateway.console import assets, fleet, sign_in

CONSOLE: Final[tuple[APIRouter, ...]] = (assets.router, sign_in.router, fleet.router)
