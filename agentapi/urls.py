"""URLs of servers: what is accepted, and how they are shown without their passwords."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

_UNREADABLE_URL: Final = (
    "cannot be read: expected a URL such as redis://user:password@127.0.0.1:6379/0, in which "
    "special characters of the password are percent-encoded (%2F for /, %40 for @, %3B for ;)"
)


def is_cluster(url: str) -> bool:
    """Whether a URL names nodes of a cluster."""
    return url.partition("://")[0] in ("redis+cluster", "rediss+cluster")


def check_urls(url: str) -> None:
    """Check that the URLs of one or several servers can be read.

    Args:
        url: One URL, or several that are separated by ``;``.

    Raises:
        ValueError: Says what is wrong, without the password.
    """
    for part in parts_of(url):
        _check_one(part)


def _check_one(url: str) -> None:
    try:
        parsed = urlsplit(url)
        _ = parsed.port
    except ValueError:
        # Python's own text may quote a part of the password.
        raise ValueError(_UNREADABLE_URL) from None
    if "://" not in url or "@" in parsed.path + parsed.query + parsed.fragment:
        raise ValueError(_UNREADABLE_URL)
    names = [name for name, _ in parse_qsl(parsed.query, keep_blank_values=True)]
    if any(name.startswith("ssl") for name in names):
        raise ValueError(
            "TLS parameters in a URL are not supported: use AGENTAPI_TLS_CA_FILE, "
            "AGENTAPI_TLS_CERT_FILE, AGENTAPI_TLS_KEY_FILE and AGENTAPI_TLS_VERIFY"
        )


def without_password(url: str) -> str:
    """The URL with its passwords replaced by ``***``, for logs and errors.

    It hides too much rather than too little when a URL is not valid, for example because a
    password has a ``/`` or ``@`` that is not percent-encoded.
    """
    return ";".join(_hide(part) for part in parts_of(url))


_NEXT_URL: Final = re.compile(r";(?=[A-Za-z+]+://)")
_SECRET: Final = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*=)[^&#]*", re.I)


def parts_of(url: str) -> list[str]:
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
