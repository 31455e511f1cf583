"""Renders the console's pages. All values in a template are shown as text."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope as AsgiScope

from orchestrator.gateway.console.assets import address_of
from orchestrator.gateway.console.flash import COOKIE, Flash, flash_from
from orchestrator.gateway.console.security import ROOT, headers_for
from orchestrator.gateway.console.shown import FILTERS
from orchestrator.gateway.console.viewer import Viewer

PAGES: Final = (
    ("Fleet", ROOT),
    ("Conversations", f"{ROOT}/conversations"),
    ("Turns", f"{ROOT}/turns"),
    ("Approvals", f"{ROOT}/approvals"),
)
"""The navigation: names and addresses."""


@cache
def environment() -> Environment:
    """The templates. Autoescape is always on and must never be turned off."""
    made = Environment(
        loader=PackageLoader("orchestrator.gateway.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.globals.update(root=ROOT, pages=PAGES, asset=address_of)
    return made


def is_fragment(request: Request) -> bool:
    """Whether a script of the page requests the part that changes."""
    return request.headers.get("hx-request") == "true"


def page(
    request: Request,
    template: str,
    *,
    fragment: str | None = None,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """Render a page, or only the part of it that changes.

    Args:
        request: The request.
        template: The page's template; it extends ``base.html``.
        fragment: The template of the part that changes, which `template` includes. A script that
            keeps the page live gets this part alone.
        status: The HTTP status.
        values: Values for the templates: JSON-like values, dataclasses or models, never markup.
    """
    viewer: Viewer | None = request.scope["state"].get("viewer")
    if fragment is not None and is_fragment(request):
        return html(request.scope, fragment, status, request=request, viewer=viewer, **values)
    flash = flash_from(request.cookies.get(COOKIE))
    answer = html(
        request.scope, template, status, request=request, viewer=viewer, flash=flash, **values
    )
    if COOKIE in request.cookies:
        answer.delete_cookie(COOKIE, path=ROOT)
    return answer


def html(scope: AsgiScope, template: str, status: int, **values: Any) -> HTMLResponse:
    """Render a template, with the console's headers for a request."""
    text = environment().get_template(template).render(**values)
    return HTMLResponse(text, status, headers=headers_for(scope))


def go_to(request: Request, address: str, flash: Flash | None = None) -> Response:
    """Redirect the browser to another page of the console after a form was posted.

    Args:
        request: The request.
        address: The page's path and query.
        flash: A message that the page shows once at its top.
    """
    answer = RedirectResponse(address, 303, headers=headers_for(request.scope))
    if flash is not None:
        answer.set_cookie(
            COOKIE,
            flash.to_cookie(),
            max_age=60,
            path=ROOT,
            secure=is_https(request.scope["scheme"], request.headers),
            httponly=True,
            samesite="strict",
        )
    return answer


def is_https(scheme: str, headers: Headers) -> bool:
    """Whether the browser uses https, perhaps to a proxy. If so, cookies are `Secure`."""
    return scheme == "https" or headers.get("origin", "").startswith("https://")
