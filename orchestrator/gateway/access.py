"""Who asks, as routes get it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from orchestrator.gateway.http.errors import InvalidRequest, NotAuthenticated
from orchestrator.gateway.http.local_only import is_local_name
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.view import TenantView

OPEN_TENANT: Final = "local"
"""Whose everything is while there are no keys."""

_bearer = HTTPBearer(auto_error=False, description="A key made with `agentapi keys create`.")


def is_loopback(settings: GatewaySettings) -> bool:
    """Whether the gateway can be reached from its own machine only."""
    return is_local_name(settings.gateway_host)


def gateway_of(request: Request) -> Gateway:
    """The process's gateway."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def tenant_view(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> TenantView:
    """What the caller may see, as `Entrance` found before the body was read.

    Raises:
        NotAuthenticated: The request did not come through the entrance.
    """
    view: TenantView | None = getattr(request.state, "view", None)
    if view is None:
        raise NotAuthenticated("nobody has looked at the key")
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
