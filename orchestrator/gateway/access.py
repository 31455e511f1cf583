"""Who asks: a bearer key becomes a tenant's view, and the request counts against its rate."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agentapi import Settings
from orchestrator.gateway.core import Gateway
from orchestrator.gateway.errors import InvalidRequest, NotAuthenticated
from orchestrator.gateway.tenancy import TenantView

OPEN_TENANT: Final = "local"
"""Whose everything is while there are no keys."""

_bearer = HTTPBearer(auto_error=False, description="A key made with `agentapi keys create`.")


def is_loopback(settings: Settings) -> bool:
    """Whether the gateway can be reached from its own machine only."""
    host = settings.gateway_host
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def gateway_of(request: Request) -> Gateway:
    """The process's gateway."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def tenant_view(
    request: Request,
    gateway: Annotated[Gateway, Depends(gateway_of)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> TenantView:
    """What the caller may see.

    Raises:
        NotAuthenticated: No key, or one that is not valid.
        RateLimited: Too many requests.
        StoreUnavailable: Redis is out of reach.
    """
    key, made = await gateway.keys.find(credentials.credentials if credentials else "")
    if key is not None:
        tenant = key.tenant
    elif made == 0 and is_loopback(gateway.settings):
        tenant = OPEN_TENANT
    else:
        raise NotAuthenticated(
            "the key is missing or not valid: send `Authorization: Bearer KEY` with a key made "
            "by `agentapi keys create`"
        )
    request.state.tenant = tenant
    view = TenantView(gateway, tenant)
    request.state.view = view
    allowance, refusal = await gateway.limiter.request(tenant)
    request.state.allowance = allowance
    if refusal is not None:
        raise refusal
    return view


def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Names this request: a repeat with the same key is the same turn.",
            min_length=1,
            max_length=256,
        ),
    ] = None,
) -> str | None:
    """The caller's name for this request.

    Raises:
        InvalidRequest: It has characters that are not printable.
    """
    if idempotency_key is not None and not idempotency_key.isprintable():
        raise InvalidRequest("Idempotency-Key must be printable", param="Idempotency-Key")
    return idempotency_key


View = Annotated[TenantView, Depends(tenant_view)]
Key = Annotated[str | None, Depends(idempotency_key)]
