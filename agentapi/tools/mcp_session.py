"""Sessions with MCP servers: one an event loop and server, made again when they break.

Imported when a server is first used: the `mcp` package costs about a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    CallToolResult,
    Tool,
    ToolListChangedNotification,
)

from agentapi.errors import ProviderUnavailable
from agentapi.tools.base import ToolFailed
from agentapi.tools.mcp_endpoint import McpEndpoint

CONNECT_TIMEOUT: Final = 20.0
"""Seconds for a server to start and say hello."""

LONGEST_PAUSE: Final = 30.0
"""Seconds between tries to reach a server that is down."""

MOST_PAGES: Final = 100


class McpSession:
    """A session with one server. Used from one event loop."""

    def __init__(self, server: McpEndpoint) -> None:
        self._server = server
        self._connecting = asyncio.Lock()
        self._life: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._end = asyncio.Event()
        self._tools: tuple[Tool, ...] | None = None
        self._remembers = True
        self._changes = 0
        self._failures = 0
        self._not_before = 0.0

    async def tools(self) -> tuple[Tool, ...]:
        """The server's tools; remembered until they change or the session breaks.

        Raises:
            ProviderUnavailable: The server cannot be reached.
        """
        tools = self._tools if self._remembers else None
        if tools is None:
            client = await self._connected()
            try:
                async with asyncio.timeout(self._server.timeout):
                    changes = self._changes
                    tools = await _all_tools(client)
                    if changes == self._changes:
                        self._tools = tools
            except (MCPError, OSError, TimeoutError, httpx2.HTTPError) as error:
                await self._broke(client)
                raise self._away(error) from error
        return tools

    async def call(self, name: str, arguments: dict[str, Any], *, repeat: bool) -> CallToolResult:
        """Call a tool.

        Args:
            name: As the server has it.
            arguments: For it.
            repeat: Whether the call may be made again when its outcome is unknown.

        Raises:
            ToolFailed: There is no result; says why.
        """
        try:
            client = await self._connected()
        except ProviderUnavailable as error:
            raise ToolFailed(f"{error}; the call was not made") from error
        try:
            return await client.call_tool(
                name, arguments, read_timeout_seconds=self._server.timeout
            )
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise ToolFailed("the tool did not answer in time") from error
            if error.code != CONNECTION_CLOSED:
                raise ToolFailed(error.message) from error
        except (OSError, RuntimeError, httpx2.HTTPError):
            pass
        await self._broke(client)
        if repeat:
            return await self.call(name, arguments, repeat=False)
        raise ToolFailed(
            f"MCP server {self._server.name!r} went away during the call: its outcome is "
            "unknown, and it was not made again. Find out before you repeat it."
        )

    async def aclose(self) -> None:
        """End the session, and the server if it was started for it."""
        self._end.set()
        if self._life is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(self._life, return_exceptions=True), 5)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is not None and self._life is not None and not self._life.done():
                return self._client
            pause = self._not_before - time.monotonic()
            if pause > 0:
                raise self._away("it is tried again soon", retry_after=pause)
            self._end = asyncio.Event()
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(ready, self._end))
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    self._client = await asyncio.shield(ready)
            except (Exception, ExceptionGroup) as error:
                self._life.cancel()
                self._failures += 1
                pause = min(2.0 ** (self._failures - 1), LONGEST_PAUSE)
                self._not_before = time.monotonic() + pause
                raise self._away(error, retry_after=pause) from error
            self._failures = 0
            return self._client

    async def _live(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        """Hold the session open: the SDK wants it closed by the task that opened it."""

        async def listen(message: object) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._forget()

        try:
            async with (
                _transport(self._server) as transport,
                Client(transport, message_handler=listen) as client,
            ):
                ready.set_result(client)
                watching = asyncio.create_task(self._watch(client))
                try:
                    await end.wait()
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else OSError(str(error)))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            # Nobody may be waiting for it any more.
            if ready.done() and not ready.cancelled():
                ready.exception()

    async def _watch(self, client: Client) -> None:
        """Forget the tools when they change. Older servers say so without being asked."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self._forget()
                    async for _ in changes:
                        self._forget()
            except ListenNotSupportedError:
                return
            except MCPError:
                # It will not say: it is asked before each model call.
                self._remembers = False
                return
            except SubscriptionLost:
                await asyncio.sleep(1)

    def _forget(self) -> None:
        self._tools = None
        self._changes += 1

    async def _broke(self, client: Client) -> None:
        """Forget a session that broke, unless another call has done so."""
        if self._client is client:
            self._client = None
            self._forget()
            await self.aclose()

    def _away(self, error: object, retry_after: float | None = None) -> ProviderUnavailable:
        why = str(error) or type(error).__name__
        return ProviderUnavailable(
            f"MCP server {self._server.name!r} cannot be used: {why}; is it running, and is the "
            "agent's McpServer(...) right?",
            provider=self._server.name,
            retry_after=retry_after,
        )


async def _all_tools(client: Client) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tuple(tools)


@asynccontextmanager
async def _transport(server: McpEndpoint) -> AsyncIterator[Any]:
    if server.url is not None:
        timeout = httpx2.Timeout(server.timeout, connect=CONNECT_TIMEOUT)
        async with httpx2.AsyncClient(headers=server.headers, timeout=timeout) as http:
            yield streamable_http_client(server.url, http_client=http)
        return
    parameters = StdioServerParameters(
        command=server.command[0],
        args=list(server.command[1:]),
        env=dict(server.env) or None,
        cwd=server.cwd,
    )
    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230
        yield stdio_client(parameters, errlog=nowhere)


class Sessions:
    """The sessions of each event loop."""

    def __init__(self) -> None:
        self._sessions: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[McpEndpoint, McpSession]
        ] = weakref.WeakKeyDictionary()

    def of(self, server: McpEndpoint) -> McpSession:
        """The running loop's session with a server."""
        found = self._sessions.setdefault(asyncio.get_running_loop(), {})
        if server not in found:
            found[server] = McpSession(server)
        return found[server]

    async def aclose(self) -> None:
        """End those of the running loop."""
        found = self._sessions.pop(asyncio.get_running_loop(), {})
        await asyncio.gather(*(session.aclose() for session in found.values()))


sessions: Final = Sessions()
