"""Routes of the console: each declares the scopes that it needs, or that it is public."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from agentapi.errors import ConfigurationError
from orchestrator.gateway.console.security import ROOT
from orchestrator.gateway.console.view import ConsoleView
from orchestrator.gateway.console.viewer import SignInNeeded, Viewer
from orchestrator.gateway.http.errors import InvalidRequest
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.scopes import Scope

F = TypeVar("F", bound=Callable[..., Any])

_SCOPES: Final = "console_scopes"
_MAX_FIELDS: Final = 100
_OPERATION: Final = re.compile(r"[0-9a-f]{32}")


def needs(*scopes: Scope) -> Callable[[F], F]:
    """Allow a route for keys with one of the given scopes. Use it below the route's decorator."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _SCOPES, frozenset(scopes))
        return endpoint

    return mark


def public(endpoint: F) -> F:
    """Allow a route for everyone who can reach the gateway."""
    setattr(endpoint, _SCOPES, None)
    return endpoint


class ConsoleRoute(APIRoute):
    """A route that requires one of the scopes that it declares."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Check that the route declares its scopes.

        Raises:
            ConfigurationError: It declares neither scopes nor that it is public.
        """
        if not hasattr(endpoint, _SCOPES):
            raise ConfigurationError(
                f"the console's route {path} declares neither the scopes that it needs nor that it "
                "is public: use @needs(...) or @public"
            )
        self.scopes: frozenset[Scope] | None = getattr(endpoint, _SCOPES)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """A handler that checks the viewer first."""
        handler = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if self.scopes is not None:
                viewer_of(request).check(*sorted(self.scopes))
            return await handler(request)

        return checked


def console_router() -> APIRouter:
    """A router for pages; its paths are below `ROOT`."""
    return APIRouter(prefix=ROOT, route_class=ConsoleRoute, include_in_schema=False)


def viewer_of(request: Request) -> Viewer:
    """The sender of a request.

    Raises:
        SignInNeeded: The sender has not signed in.
    """
    viewer: Viewer | None = request.scope["state"].get("viewer")
    if viewer is None:
        raise SignInNeeded("sign in with a key that opens the console")
    return viewer


def console_view(request: Request) -> ConsoleView:
    """What the viewer may see and do."""
    gateway: Gateway = request.app.state.gateway
    return ConsoleView(gateway, viewer_of(request))


async def form_fields(request: Request) -> dict[str, str]:
    """The fields of a posted form, by name.

    Raises:
        InvalidRequest: The body is not a form.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/x-www-form-urlencoded":
        raise InvalidRequest(
            f"the body has the content type {declared or 'nothing'!r}: expected a form",
            code="unsupported_content_type",
        )
    try:
        text = (await request.body()).decode("ascii")
        fields = parse_qsl(
            text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise InvalidRequest("the form cannot be read: send it again") from error
    # Browsers send newlines as CR LF.
    return {name: value.replace("\r\n", "\n") for name, value in fields}


def operation_of(form: Mapping[str, str]) -> str:
    """The id of a form, so that a form that is posted twice takes effect only once.

    Raises:
        InvalidRequest: The form has no valid id.
    """
    operation = form.get("operation", "")
    if not _OPERATION.fullmatch(operation):
        raise InvalidRequest("the form is incomplete: reload the page", param="operation")
    return operation


View = Annotated[ConsoleView, Depends(console_view)]
Form = Annotated[dict[str, str], Depends(form_fields)]
