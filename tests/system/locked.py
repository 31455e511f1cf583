"""A gateway with keys, and how its people sign in."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from playwright.sync_api import Page

from agentapi import Settings
from agentapi.redis.aio import connect
from orchestrator import Orchestrator
from orchestrator.gateway.tenants.keys import KeyStore
from orchestrator.gateway.tenants.scopes import scopes_of
from orchestrator.stack import Stack
from tests.system.browser import Visit
from tests.system.seen import url_of


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A gateway with keys.

    Attributes:
        stack: Its processes.
        orchestrator: A producer.
        operator: A key that sees all tenants, and may change turns.
        reader: A key of the tenant acme that sees what there is, but not what was said.
        listener: A key of the tenant acme that sees what was said as well.
        program: A key of the tenant acme for the APIs.
        stranger: A key of the tenant evil with all scopes but that for all tenants.
    """

    stack: Stack
    orchestrator: Orchestrator
    operator: str
    reader: str
    listener: str
    program: str
    stranger: str

    @property
    def url(self) -> str:
        """The gateway's address."""
        return url_of(self.stack)


def make_keys(settings: Settings, *wanted: tuple[str, str]) -> list[str]:
    """Keys, each of a tenant with some scopes, separated by spaces."""

    async def make() -> list[str]:
        client = connect(settings, connections=1)
        try:
            store = KeyStore(settings, client)
            return [
                (await store.create(tenant, "test", scopes_of(scopes.split())))[1]
                for tenant, scopes in wanted
            ]
        finally:
            await client.aclose()

    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, make()).result()


def sign_in(visit: Visit, key: str, path: str = "/console") -> Page:
    """Open a page as somebody who has a key and is not signed in yet."""
    page = visit.page(path)
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    return page
