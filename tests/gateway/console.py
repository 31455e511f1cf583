"""Browsers that look at the console of a gateway."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import httpx2
from fastapi.routing import APIRoute

from agentapi import Settings
from agentapi.redis.aio import connect
from orchestrator.gateway.app import create_app
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.gateway.tenants.keys import ApiKey, KeyStore
from orchestrator.gateway.tenants.scopes import Scope

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\u202eevil\u202c\x07\x1b[2J שלום"
"""What must be shown as text."""


def new_key(settings: Settings, tenant: str, scopes: Iterable[Scope]) -> tuple[ApiKey, str]:
    """A key, and its secret."""

    async def make() -> tuple[ApiKey, str]:
        client = connect(settings, connections=1)
        try:
            return await KeyStore(settings, client).create(tenant, "test", frozenset(scopes))
        finally:
            await client.aclose()

    return asyncio.run(make())


class Browser:
    """Somebody's browser without scripts: it keeps cookies, follows nothing, and posts forms."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=90)

    def sign_in(self, key: str, **fields: str) -> httpx2.Response:
        return self.post("/console/sign-in", key=key, **fields)

    def get(self, path: str, **parameters: Any) -> httpx2.Response:
        return self.http.get(path, params=parameters or None)

    def part(self, path: str, **parameters: Any) -> httpx2.Response:
        """The part of a page that a script asks for."""
        headers = {"hx-request": "true", "hx-current-url": f"{self.url}{path}"}
        return self.http.get(path, params=parameters or None, headers=headers)

    def post(self, path: str, **fields: str) -> httpx2.Response:
        return self.http.post(path, data=fields, headers={"origin": self.url})

    def close(self) -> None:
        self.http.close()


def hidden(page: str, name: str) -> str:
    """The value of a hidden field of a page."""
    found = re.search(rf'type="hidden" name="{name}" value="([^"]*)"', page)
    assert found, f"the page has no field {name}"
    return found[1]


def text_of(page: str) -> str:
    """A page without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


@cache
def routes() -> tuple[tuple[str, APIRoute], ...]:
    """All routes of a gateway, with a method of each."""
    found: list[tuple[str, APIRoute]] = []
    pending: list[Any] = list(create_app(load_gateway_settings()).routes)
    while pending:
        route = pending.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            pending += inner.routes
        elif isinstance(route, APIRoute):
            found += [(method, route) for method in sorted(route.methods or ())]
    return tuple(found)
