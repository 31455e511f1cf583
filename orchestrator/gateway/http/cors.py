"""CORS: which web pages may read the gateway's answers in a browser."""

from __future__ import annotations

import re
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

ORIGIN: Final = re.compile(r"https?://[^/\s?#@*]+|\*")
"""An origin as browsers send it, or `*` for all origins."""

_EXPOSED: Final = (
    "x-request-id",
    "x-response-id",
    "x-agentapi-ignored",
    "x-should-retry",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
)
"""Headers that a page may read, in addition to those that browsers always expose."""

_PREFLIGHT_AGE: Final = 600


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Let pages of some origins read the answers.

    Outermost, since a browser asks before it sends a key, and a page should be able to read why a
    request was refused.

    Args:
        app: The application.
        origins: The origins; none changes nothing.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=_PREFLIGHT_AGE,
    )
