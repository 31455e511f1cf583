"""Where an MCP server is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class McpEndpoint:
    """How to reach a server. Each object is a server of its own; see `McpServer`."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | Path | None
    url: str | None
    headers: Mapping[str, str]
    timeout: float

    def __repr__(self) -> str:
        # Arguments, variables and headers may hold keys.
        where = self.command[0] if self.command else (self.url or "").partition("?")[0]
        return f"{self.name!r}, {where!r}"
