"""Authentication, decided by a request's headers before any byte of its body is read."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from orchestrator.gateway.console.authentication import ConsoleAuthenticator
from orchestrator.gateway.console.security import is_console
from orchestrator.gateway.http.errors import Forbidden, NotAuthenticated, RateLimited
from orchestrator.gateway.http.local_only import refusal
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.concurrency import RequestSlot
from orchestrator.gateway.tenants.scopes import Scope as KeyScope
from orchestrator.gateway.view import TenantView

LOCAL_TENANT: Final = "local"
"""The tenant of all requests while no key exists."""

PUBLIC_PATHS: Final = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Paths that do not need a key."""


class Authenticator:
    """Refuses requests that may not pass, and identifies the tenant of the others."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._keys_optional = settings.is_loopback and not settings.gateway_require_keys
        self._console = ConsoleAuthenticator(
            gateway, keys_optional=self._keys_optional, local_tenant=LOCAL_TENANT
        )

    async def authenticate(self, scope: Scope, headers: Headers) -> None:
        """Let a request pass. Its state then has the tenant's view, allowance and a free slot.

        Raises:
            Misdirected: There are no keys, and the request is not for a name of this machine.
            Forbidden: There are no keys, and it came from a web page or through a proxy; or the key
                does not have the scope `turns`; or it is for the console, from another origin.
            NotAuthenticated: The key is missing or not valid.
            RateLimited: Too many requests of the tenant, or without a valid key.
            StoreUnavailable: Redis is out of reach.
        """
        console = is_console(scope["path"])
        if console:
            self._console.prepare(scope)
        await self._require_local_without_keys(headers)
        if scope["path"] in PUBLIC_PATHS:
            return
        if console:
            await self._console.admit(scope, headers)
            return
        tenant = await self._tenant(scope, headers)
        state = scope["state"]
        # Set before the rate is checked, so that the log line and headers of a refusal have them.
        state["tenant"] = tenant
        slot = RequestSlot(self._gateway.active_requests, tenant)
        state["slot"] = slot
        state["view"] = TenantView(self._gateway, tenant, slot)
        state["allowance"], refused = await self._gateway.rate_limiter.request(tenant)
        if refused is not None:
            raise refused

    async def _require_local_without_keys(self, headers: Headers) -> None:
        gateway = self._gateway
        if gateway.settings.gateway_require_keys or gateway.keys.seen:
            return
        # Redis is asked only if the request would be refused: most are not.
        refused = refusal(headers)
        if refused is not None and not await gateway.keys.exist():
            raise refused

    async def _tenant(self, scope: Scope, headers: Headers) -> str:
        gateway, secret, peer = self._gateway, _bearer(headers), _peer(scope)
        keys, failures = gateway.keys, gateway.failed_auth
        # Before Redis is asked: guessed keys must not cost a round trip each.
        wait = failures.retry_after(peer)
        # Behind a proxy, someone who guesses keys has the same address as clients with a key.
        if wait and not keys.was_valid(secret):
            raise RateLimited(
                "too many requests without a valid key: wait as long as `retry-after` says",
                code="too_many_wrong_keys",
                retry_after=wait,
            )
        if secret and (key := await keys.find(secret)) is not None:
            # Whatever route it is: a new one must not open to keys that were made for the console.
            if KeyScope.TURNS not in key.scopes:
                raise Forbidden(
                    "this key is for the console only: the APIs need one with the scope `turns`, "
                    "from `agentapi keys create TENANT`",
                    code="scope_needed",
                )
            return key.tenant
        # `exist` stays true once keys were made: revoking or losing them must not open the gateway.
        if self._keys_optional and not await keys.exist():
            return LOCAL_TENANT
        failures.record_failure(peer)
        raise NotAuthenticated(
            "the key is missing or not valid: send `Authorization: Bearer KEY` with a key from "
            "`agentapi keys create`"
        )


def _bearer(headers: Headers) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "-"
