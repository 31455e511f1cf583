"""FastAPI dependencies of the routes: the gateway, the caller's view, the idempotency key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator

from orchestrator.gateway.http.errors import InvalidRequest, NotAuthenticated
from orchestrator.gateway.ids import turn_id_from
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.view import TenantView

# For the OpenAPI document only: `Authenticator` has checked the key already.
_bearer = HTTPBearer(auto_error=False, description="A key from `agentapi keys create`.")


def gateway_of(request: Request) -> Gateway:
    """The process's gateway."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def tenant_view(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> TenantView:
    """What the caller may see and do, from the request's state, where `Authenticator` put it.

    Raises:
        NotAuthenticated: The request has not passed `Authenticator`.
    """
    view: TenantView | None = getattr(request.state, "view", None)
    # Fails closed: a route must never run without a tenant, no matter how the app is assembled.
    if view is None:
        raise NotAuthenticated("the request was not authenticated")
    return view


def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Identifies this request: a repeat with the same key is the same turn.",
            min_length=1,
            max_length=256,
        ),
    ] = None,
) -> str | None:
    """The caller's idempotency key for this request.

    Raises:
        InvalidRequest: It has characters that are not printable.
    """
    if idempotency_key is not None and not idempotency_key.isprintable():
        raise InvalidRequest("Idempotency-Key must consist of printable", param="Idempotency-Key")
    return idempotency_key


View = Annotated[TenantView, Depends(tenant_view)]
TurnId = Annotated[
    str,
    AfterValidator(turn_id_from),
    Path(description="The turn's id, or the id of its response or chat completion."),
]
Key = Annotated[str | None, Depends(idempotency_key)]
