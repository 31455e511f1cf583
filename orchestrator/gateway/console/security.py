"""Protects the console from other web pages, and restricts what its own pages may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope as AsgiScope

from orchestrator.gateway.http.errors import Forbidden

ROOT: Final = "/console"

SAFE: Final = frozenset({"GET", "HEAD"})
"""Methods that change no state."""

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`: with it browsers hide the origin of forms, which is checked here.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every response. They forbid inline scripts and styles, so that users' text can never
run as either."""


_OPENER: Final = {"cross-origin-opener-policy": "same-origin"}


def headers_for(scope: AsgiScope) -> dict[str, str]:
    """The headers of the response to a request.

    Browsers honour the opener policy only over https or on this machine, and complain about it
    elsewhere. Only there do they send fetch metadata.
    """
    trusted = scope["scheme"] == "https" or "sec-fetch-mode" in Headers(scope=scope)
    return {**HEADERS, **_OPENER} if trusted else dict(HEADERS)


def is_console(path: str) -> bool:
    """Whether a path is one of the console's."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def check_origin(method: str, headers: Headers) -> None:
    """Check that a request comes from the console's own pages, or from a link that a person opened.

    Browsers report it in headers that scripts cannot change. In addition, the session's cookie is
    `SameSite=Strict`.

    Args:
        method: The request's method.
        headers: The request's headers.

    Raises:
        Forbidden: It comes from another origin, or changes something without naming its origin.
    """
    site = headers.get("sec-fetch-site")
    origins = headers.getlist("origin")
    own = headers.get("host", "")
    if any(_host_of(origin) != own.lower() for origin in origins):
        raise _foreign()
    if method in SAFE:
        # Links on other pages may lead here; their scripts, images and frames may not.
        opened = headers.get("sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not opened:
            raise _foreign()
    elif site not in (None, "same-origin") or not (site or origins):
        raise _foreign()


def _foreign() -> Forbidden:
    return Forbidden(
        "the console only accepts requests from its own pages: open it in a browser and use the "
        "address that the browser shows. A proxy in front must forward the Host header",
        code="origin_not_allowed",
    )


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def own_address(given: str | None) -> str:
    """Where to go after signing in: an address within the console, its first page for any other."""
    if given and is_console(given.partition("?")[0]) and "\\" not in given and given.isprintable():
        return given
    return ROOT
