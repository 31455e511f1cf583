"""Decides which requests are served while no key exists: those from this machine to this machine.

Listening on loopback is not enough. A web page in a browser on this machine can send requests to
127.0.0.1, even under a name of its own (DNS rebinding), and a proxy on this machine forwards what
others send. The headers show both.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from orchestrator.gateway.http.errors import Forbidden, GatewayError, Misdirected

_REMEDY: Final = (
    "create a key with `agentapi keys create TENANT`, or set AGENTAPI_GATEWAY_REQUIRE_KEYS, and "
    "send `Authorization: Bearer KEY`"
)

_PROXY_HEADERS: Final = frozenset(
    {
        "cf-connecting-ip",
        "client-ip",
        "fastly-client-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-real-ip",
    }
)


def is_local_name(host: str) -> bool:
    """Whether a host's name or address always means this machine.

    Args:
        host: Without a port. An IPv6 address without its brackets.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(headers: Headers) -> GatewayError | None:
    """Why a request is not served while there are no keys; None if it is served.

    Args:
        headers: The request's headers.
    """
    if proxies := sorted(name for name in headers.keys() if _is_proxy_header(name)):  # noqa: SIM118
        return Forbidden(
            f"the request came through a proxy ({', '.join(proxies)}), but this gateway has no "
            f"keys: {_REMEDY}",
            code="keys_needed",
        )
    if not _all_local(f"//{host}" for host in headers.getlist("host") or [""]):
        return Misdirected(
            "this gateway has no keys, so it only serves requests to localhost, 127.0.0.1 or "
            f"[::1]: {_REMEDY}"
        )
    foreign = headers.get("sec-fetch-site") == "cross-site"
    if foreign or not _all_local(headers.getlist("origin")):
        return Forbidden(
            f"this gateway has no keys, so it only serves web pages of this machine: {_REMEDY}",
            code="origin_not_allowed",
        )
    return None


def _is_proxy_header(name: str) -> bool:
    return name in _PROXY_HEADERS or name.startswith("x-forwarded-")


def _all_local(urls: Iterable[str]) -> bool:
    return all(is_local_name(_host_of(url)) for url in urls)


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        # `port` raises if it is not a number.
        return (parts.hostname or "") if parts.port is None or parts.port >= 0 else ""
    except ValueError:
        return ""
