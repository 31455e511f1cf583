"""A small MCP server over stdio that serves notes."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("notes")
_NOTES = {"shopping": "milk, bread", "ideas": "write a runtime"}


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read_note(title: str) -> str:
    """Read a note.

    Args:
        title: The note's title.
    """
    if title not in _NOTES:
        raise ToolError(f"there is no note {title!r}; there are: {', '.join(_NOTES)}")
    return _NOTES[title]


if __name__ == "__main__":
    server.run("stdio")
