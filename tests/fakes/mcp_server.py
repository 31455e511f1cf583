"""A real MCP server, as a process: ``python -m tests.fakes.mcp_server [PORT]``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("shelf")


class Book(BaseModel):
    title: str
    pages: int


# A call that began before its server died may be repeated.
@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read(title: str) -> str:
    """Read a book."""
    return f"{title}, by {os.environ.get('SHELF_OWNER', 'nobody')}"


@server.tool()
def find(title: str) -> Book:
    """Find a book."""
    return Book(title=title, pages=7)


@server.tool()
def burn(title: str) -> str:
    """Burn a book."""
    raise ToolError(f"{title} does not burn")


@server.tool()
def long(size: int) -> str:
    """Give a long text."""
    return "x" * size


@server.tool()
def slow(seconds: float) -> str:
    """Take a while."""
    time.sleep(seconds)
    return "at last"


@server.tool()
def crash() -> str:
    """End the server in the middle of the call."""
    os._exit(1)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def crash_once(marker: str) -> str:
    """End the server in the middle of the first call."""
    if not Path(marker).exists():
        Path(marker).write_text("crashed")
        os._exit(1)
    return "recovered"


@server.tool()
async def grow(context: Context) -> str:
    """Get one tool more."""
    server.add_tool(lambda: "new", name="newcomer", description="New.")
    await context.notify_tools_changed()
    return "grown"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
