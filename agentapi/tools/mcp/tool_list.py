"""The tools of an MCP server that providers accept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from mcp import Client
from mcp.types import Tool

from agentapi.decoding.plain import DEEPEST

MOST_PAGES: Final = 100

MOST_TOOLS: Final = 1_000
"""Maximum tools of a server; models cannot choose well among more."""


async def all_tools(client: Client) -> tuple[Tool, ...]:
    """List all tools of the server."""
    tools: list[Tool] = []
    cursor: str | None = None
    # Bounded: a faulty server may always name another page.
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tuple(tools)


def is_usable(tool: Tool) -> bool:
    """Whether providers accept the tool: its schema is an object, and valid JSON."""
    try:
        json.dumps(tool.input_schema, allow_nan=False, ensure_ascii=False).encode()
        fits = _depth(tool.input_schema) <= DEEPEST
    except (ValueError, RecursionError):
        return False
    return fits and tool.input_schema.get("type") == "object"


def _depth(value: Any) -> int:
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    return 1 + max(map(_depth, inside), default=0)
