"""Who comes in: settled from a request's head, before a byte of its body is read."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from orchestrator.gateway.access import OPEN_TENANT, is_loopback
from orchestrator.gateway.http.errors import NotAuthenticated, RateLimited
from orchestrator.gateway.http.local_only import refusal
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.view import TenantView

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What is answered without a key."""


class Entrance:
    """Refuses who may not come in, and says to the routes whom the request is from."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._may_be_open = is_loopback(settings) and not settings.gateway_require_keys

    async def admit(self, scope: Scope, headers: Headers) -> None:
        """Let a request in; its state then has the tenant, what it may see, and its allowance.

        Raises:
            Misdirected: There are no keys and the request is not to this machine's own names.
            Forbidden: There are no keys and it came from a web page or through a proxy.
            NotAuthenticated: No key, or one that is not valid.
            RateLimited: Too many requests, of the tenant or without a key.
            StoreUnavailable: Redis is out of reach.
        """
        await self._local_without_keys(headers)
        if scope["path"] in OPEN_PATHS:
            return
        tenant = await self._tenant(scope, headers)
        state = scope["state"]
        state["tenant"] = tenant
        state["view"] = TenantView(self._gateway, tenant)
        state["allowance"], over = await self._gateway.limiter.request(tenant)
        if over is not None:
            raise over

    async def _local_without_keys(self, headers: Headers) -> None:
        gateway = self._gateway
        if gateway.settings.gateway_require_keys or gateway.keys.seen:
            return
        refused = refusal(headers)
        if refused is not None and not await gateway.keys.exist():
            raise refused

    async def _tenant(self, scope: Scope, headers: Headers) -> str:
        gateway, secret, peer = self._gateway, _bearer(headers), _peer(scope)
        keys, strangers = gateway.keys, gateway.strangers
        wait = strangers.wait(peer)
        if wait and not keys.was_valid(secret):
            raise RateLimited(
                "too many requests without a valid key: wait as `retry-after` says",
                code="too_many_wrong_keys",
                retry_after=wait,
            )
        if secret and (key := await keys.find(secret)) is not None:
            return key.tenant
        if self._may_be_open and not await keys.exist():
            return OPEN_TENANT
        strangers.note(peer)
        raise NotAuthenticated(
            "the key is missing or not valid: send `Authorization: Bearer KEY` with a key made "
            "by `agentapi keys create`"
        )


def _bearer(headers: Headers) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "-"
