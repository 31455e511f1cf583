"""URLs of servers, and their passwords."""

from __future__ import annotations

import re
from typing import Final

_NEXT_URL: Final = re.compile(r";(?=[A-Za-z+]+://)")
_SECRET: Final = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*=)[^&#]*", re.I)


def without_password(url: str) -> str:
    """The URL with its passwords replaced by ``***``, for logs and errors.

    It hides too much rather than too little when a URL is not valid, for example because a
    password has a ``/`` or ``@`` that is not percent-encoded.
    """
    return ";".join(_hide(part) for part in urls_of(url))


def urls_of(url: str) -> list[str]:
    """The URLs of several servers. A ``;`` elsewhere may be a part of a password."""
    return _NEXT_URL.split(url)


def _hide(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    account, at, host = rest.rpartition("@")
    if at:
        # An account without a colon may be a password whose colon was forgotten.
        user, colon, _ = account.partition(":")
        account = f"{user}:***" if colon else "***"
    return scheme + separator + account + at + _SECRET.sub(r"\1***", host)
