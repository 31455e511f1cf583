"""Which URLs are public: they mean the same host in every network."""

from __future__ import annotations

import socket
import unicodedata
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

_LOCAL_NAMES: Final = (
    "home.arpa",
    "instance-data",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "metadata",
    "svc",
)
"""Suffixes of host names that resolve differently in each network: this machine, a cloud's
metadata, services of a cluster."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = IPv6Network("::/96")


def is_public(url: str) -> bool:
    """Whether a URL means the same host everywhere. Names are not resolved.

    Args:
        url: An http or https URL.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    # HTTP clients normalize other Unicode forms of letters and digits.
    host = unicodedata.normalize("NFKC", host).rstrip(".")
    address = _address(host)
    if address is not None:
        return _is_public(address)
    return "." in host and not any(
        host == name or host.endswith(f".{name}") for name in _LOCAL_NAMES
    )


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(inner)
        # NAT64 addresses, and those with IPv4 in the last bits, reach IPv4 hosts too.
        if address in _NAT64 or address in _COMPATIBLE:
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address that a host is, in any form that HTTP clients accept."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # It also reads 127.1, 0x7f000001 and 2130706433.
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None
