"""The address of an MCP server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class McpEndpoint:
    """How to reach a server. Compared by identity: each object has its own session."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | Path | None
    url: str | None
    headers: Mapping[str, str]
    timeout: float

    def __repr__(self) -> str:
        # Arguments, variables, headers, and a URL's user, password and query may hold secrets.
        where = self.command[0] if self.command else _place(self.url or "")
        return f"{self.name!r}, {where!r}"


def is_http(url: object) -> bool:
    """Whether `url` is an http or https URL with a host."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
