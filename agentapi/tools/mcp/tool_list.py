"""The list of tools of an MCP server, as far as providers take it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from mcp import Client
from mcp.types import Tool

from agentapi.decoding.plain import DEEPEST

MOST_PAGES: Final = 100

MOST_TOOLS: Final = 1_000
"""No model chooses among more."""


async def all_tools(client: Client) -> tuple[Tool, ...]:
    """All tools that the server lists."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tuple(tools)


def is_usable(tool: Tool) -> bool:
    """Whether providers take it: with a schema of an object that JSON can say."""
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
