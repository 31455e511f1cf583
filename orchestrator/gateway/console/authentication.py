"""Identifies who sends a request to the console: by a session's cookie, or anyone on this machine
while there are no keys."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope as AsgiScope

from orchestrator.gateway.console.errors import error_page
from orchestrator.gateway.console.security import check_origin
from orchestrator.gateway.console.sessions import name_of
from orchestrator.gateway.console.viewer import Viewer
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.concurrency import RequestSlot
from orchestrator.gateway.tenants.scopes import CONSOLE, Scope, allowed_by

COOKIE: Final = "agentapi-console"
"""The cookie with a session's token."""

EVERYTHING: Final = frozenset(Scope)


class ConsoleAuthenticator:
    """Identifies the viewer for the console's routes, which refuse viewers without the right
    scope."""

    def __init__(self, gateway: Gateway, *, keys_optional: bool, local_tenant: str) -> None:
        """Create the authenticator.

        Args:
            gateway: The process's services.
            keys_optional: Whether anyone who reaches the gateway may use it until the first key is
                created.
            local_tenant: The tenant of those requests.
        """
        self._gateway = gateway
        self._keys_optional = keys_optional
        self._local = Viewer(tenant=local_tenant, scopes=EVERYTHING)

    def prepare(self, scope: AsgiScope) -> None:
        """Answer errors of the request with a page from now on."""
        scope["state"]["answer"] = partial(error_page, scope)

    async def admit(self, scope: AsgiScope, headers: Headers) -> None:
        """Accept a request. Its state then has `viewer`, which is None for an unknown viewer.

        Raises:
            Forbidden: It comes from another origin.
            RateLimited: Too many requests of one session.
            StoreUnavailable: Redis is out of reach.
        """
        check_origin(scope["method"], headers)
        state = scope["state"]
        token = token_of(headers)
        viewer = state["viewer"] = await self._viewer(token)
        if viewer is None:
            return
        state["tenant"] = viewer.tenant
        # Not the tenant's name, because watching must not count against the tenant's requests.
        name = f"console:{name_of(token) if viewer.key_id else viewer.tenant}"
        state["slot"] = RequestSlot(self._gateway.active_requests, name)
        _, refused = await self._gateway.rate_limiter.request(name)
        if refused is not None:
            raise refused

    async def _viewer(self, token: str) -> Viewer | None:
        gateway = self._gateway
        if token and (key := await gateway.sessions.find(token)) is not None:
            return viewer_of(key.tenant, key.scopes, key.key_id)
        if self._keys_optional and not await gateway.keys.exist():
            return self._local
        return None


def viewer_of(tenant: str, scopes: frozenset[Scope], key_id: str) -> Viewer | None:
    """The holder of a key; None if the key does not open the console."""
    if scopes.isdisjoint(CONSOLE):
        return None
    return Viewer(tenant=tenant, scopes=allowed_by(scopes), key_id=key_id)


def token_of(headers: Headers) -> str:
    """The token of the request's session; "" without one."""
    return cookie_parser("; ".join(headers.getlist("cookie"))).get(COOKIE, "")
