"""Tools from MCP servers (Model Context Protocol), through the official `mcp` package."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentapi.decoding.plain import clean_text, cut
from agentapi.errors import InvalidTool
from agentapi.extras import require_extra
from agentapi.faults import text_of
from agentapi.providers.base import ToolSpec
from agentapi.tools.base import BaseTool, ToolFailed
from agentapi.tools.context import ToolContext
from agentapi.tools.mcp.endpoint import McpEndpoint, is_http

if TYPE_CHECKING:
    from mcp.types import CallToolResult, Tool

    from agentapi.tools.mcp.session import McpSession

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


class McpServer:
    """A server whose tools an agent can call: ``Agent(tools=[McpServer("files", ...)])``.

    Each worker process keeps one session with it, which is opened at first use and reopened after
    it breaks.
    """

    def __init__(  # noqa: PLR0913 - users see one flat list of options
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        requires_approval: bool | Collection[str] = False,
        timeout: float = 60.0,
        max_result_bytes: int = 65_536,
    ) -> None:
        """Describe a server; nothing is started or connected yet.

        Args:
            name: Prefix of its tools' names: a letter, then at most 31 letters, digits or
                underscores. With ``files``, its tool ``read`` becomes ``files_read``.
            command: Program and arguments of a server that speaks over stdio; each worker
                process starts one. Its stderr is discarded, since it may quote users.
            env: Environment variables for it, besides a few harmless ones of this process.
            cwd: Its working directory.
            url: URL of a server that speaks streamable HTTP; instead of a command.
            headers: HTTP headers, such as an authorization; never shown.
            only: Names of the tools to offer, without the prefix; all when not given.
            without: Names of tools not to offer, without the prefix.
            requires_approval: Whether a person must approve calls: of all tools, or of those
                named.
            timeout: Seconds a call may take, above 0.
            max_result_bytes: Maximum bytes of a result, at least 1; the rest is cut off.

        Raises:
            InvalidTool: An argument is not valid; the message says which.
            ConfigurationError: The `mcp` package is not installed.
        """
        require_extra("mcp", "an MCP server")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidTool(
                f"{name!r} is not a valid MCP server name: expected a letter, then at most 31 "
                "letters, digits or underscores"
            )
        if (command is None) == (url is None) or (command is not None and not command):
            raise InvalidTool(f"MCP server {name!r}: expected either a command or a url")
        if url is not None and not is_http(url):
            raise InvalidTool(f"MCP server {name!r}: the url is not a valid http or https URL")
        # A string would pass as a collection of its characters.
        lists = {
            "command": command,
            "only": only,
            "without": without,
            "requires_approval": requires_approval,
        }
        for what, value in lists.items():
            if isinstance(value, str):
                raise InvalidTool(f"MCP server {name!r}: {what} is a string, expected a list")
        if timeout <= 0 or max_result_bytes < 1:
            raise InvalidTool(
                f"MCP server {name!r}: timeout is {timeout} and max_result_bytes is "
                f"{max_result_bytes}, expected seconds above 0 and 1 or more"
            )
        self.name = name
        self.endpoint = McpEndpoint(
            name=name,
            command=tuple(command or ()),
            env=dict(env or {}),
            cwd=cwd,
            url=url,
            headers=dict(headers or {}),
            timeout=timeout,
        )
        self.max_result_bytes = max_result_bytes
        self._only = None if only is None else frozenset(only)
        self._without = frozenset(without)
        self._requires_approval = requires_approval

    def __repr__(self) -> str:
        return f"McpServer({self.endpoint!r})"

    async def tools(self) -> Sequence[BaseTool]:
        """See `ToolSource.tools`; cached until the server reports a change."""
        # Only now: the package takes a second to import, and many processes never use it.
        from agentapi.tools.mcp.session import sessions

        session = sessions.of(self.endpoint)
        return [
            McpTool(self, session, tool, approval=self._approves(tool.name))
            for tool in await session.tools()
            if self._offers(tool.name)
        ]

    def _offers(self, tool: str) -> bool:
        return (self._only is None or tool in self._only) and tool not in self._without

    def _approves(self, tool: str) -> bool:
        needs = self._requires_approval
        return needs if isinstance(needs, bool) else tool in needs


class McpTool(BaseTool):
    """A tool of an MCP server."""

    def __init__(
        self, server: McpServer, session: McpSession, tool: Tool, *, approval: bool
    ) -> None:
        hints = tool.annotations
        super().__init__(
            ToolSpec(
                name=_NOT_IN_NAMES.sub("_", f"{server.name}_{tool.name}")[:64],
                description=clean_text(tool.description or ""),
                parameters=tool.input_schema,
            ),
            # The server's own word. Without it a call with an unknown outcome is not repeated
            # (promise 6).
            idempotent=bool(hints and (hints.read_only_hint or hints.idempotent_hint)),
            timeout=server.endpoint.timeout,
        )
        self._session = session
        self._tool = tool.name
        self._longest = server.max_result_bytes
        self._approval = approval

    async def needs_approval(self, arguments: Mapping[str, Any], context: ToolContext) -> bool:
        """See `BaseTool.needs_approval`."""
        return self._approval

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Let the server make the call; it validates the arguments.

        Raises:
            ToolFailed: The call failed, or the server does not answer.
        """
        try:
            result = await self._session.call(self._tool, dict(arguments), repeat=self.idempotent)
        except ToolFailed as failure:
            raise ToolFailed(cut(text_of(failure), self._longest)) from failure
        text = cut(clean_text(_text(result)), self._longest)
        if result.is_error:
            raise ToolFailed(text or "the tool failed without a message")
        return text


def _text(result: CallToolResult) -> str:
    from mcp import types

    parts: list[str] = []
    for block in result.content:
        match block:
            case types.TextContent(text=text):
                parts.append(text)
            case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
                parts.append(text)
            case types.ResourceLink(uri=uri):
                parts.append(f"[resource {uri}]")
            case types.ImageContent() | types.AudioContent():
                parts.append(f"[{block.mime_type}, {len(block.data) * 3 // 4} bytes]")
            case _:
                parts.append(f"[{block.type}]")
    if parts or result.structured_content is None:
        return "\n".join(parts)
    from pydantic_core import to_json

    return to_json(result.structured_content).decode()


def hold_sessions(holder: object, sources: Iterable[object]) -> None:
    """Note that somebody uses the sessions with these servers; see `LoopClients.hold`.

    Args:
        holder: Whoever uses them.
        sources: Sources of tools; those that are not MCP servers are skipped.
    """
    endpoints = [source.endpoint for source in sources if isinstance(source, McpServer)]
    if endpoints:
        from agentapi.tools.mcp.session import sessions

        sessions.hold(holder, endpoints)


async def release_sessions(holder: object) -> None:
    """Close the sessions that nobody but this holder uses; see `LoopClients.release`."""
    import sys

    module = sys.modules.get("agentapi.tools.mcp.session")
    if module is not None:
        await module.sessions.release(holder)


async def close_sessions() -> None:
    """Close the running loop's sessions, and stop the servers that were started for them."""
    import sys

    # Looked up, not imported: without the module there are no sessions to close.
    module = sys.modules.get("agentapi.tools.mcp.session")
    if module is not None:
        await module.sessions.aclose()
