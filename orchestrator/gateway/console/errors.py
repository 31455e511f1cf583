"""Shows errors as pages, and redirects to the sign-in page."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope as AsgiScope

from orchestrator.gateway.console.pages import html
from orchestrator.gateway.console.security import ROOT, SAFE, headers_for
from orchestrator.gateway.console.viewer import SignInNeeded
from orchestrator.gateway.http.errors import Problem

SIGN_IN: Final = f"{ROOT}/sign-in"

_TITLES: Final = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    410: "Expired",
    421: "Wrong address",
    429: "Too many requests",
    503: "Out of reach",
}


def error_page(scope: AsgiScope, problem: Problem) -> Response:
    """The console's response for an error.

    Args:
        scope: The request.
        problem: The error.
    """
    headers = Headers(scope=scope)
    if problem.code == SignInNeeded.code:
        return _to_sign_in(scope, headers)
    answer = html(
        scope,
        "error.html",
        problem.status,
        viewer=scope["state"].get("viewer"),
        request=None,
        flash=None,
        title=_TITLES.get(problem.status, "That did not work"),
        problem=problem,
        request_id=scope["state"].get("request_id", ""),
    )
    answer.headers.update(problem.headers)
    return answer


def _to_sign_in(scope: AsgiScope, headers: Headers) -> Response:
    asked = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    if query := scope.get("query_string", b"").decode("latin-1"):
        asked = f"{asked}?{query}"
    if scope["method"] in SAFE and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        # A browser that follows a link from another site sends no `SameSite=Strict` cookie. It does
        # when this page then leads to the same address.
        return html(scope, "again.html", 200, address=asked)
    if headers.get("hx-request") == "true" or scope["method"] not in SAFE:
        # The address of a page's fragment is not the address of the page.
        asked = headers.get("hx-current-url", "").partition(headers.get("host", "\0"))[2] or ROOT
    address = f"{SIGN_IN}?{urlencode({'next': asked})}"
    if headers.get("hx-request") == "true":
        return Response(status_code=401, headers={**headers_for(scope), "hx-redirect": address})
    return RedirectResponse(address, 303, headers=headers_for(scope))
