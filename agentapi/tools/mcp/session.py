"""Sessions with MCP servers: one per event loop and server, reopened after they break.

Imported when a server is first used: the `mcp` package costs about a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any, Final

import httpx2
from anyio import BrokenResourceError, ClosedResourceError
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    REQUEST_TIMEOUT,
    CallToolResult,
    Tool,
    ToolListChangedNotification,
)

from agentapi.decoding.plain import clean_text, cut
from agentapi.errors import ToolServerUnavailable
from agentapi.logs import line
from agentapi.providers.loop_clients import LoopClients
from agentapi.tools.base import ToolFailed
from agentapi.tools.mcp.endpoint import McpEndpoint
from agentapi.tools.mcp.tool_list import MOST_TOOLS, all_tools, is_usable

log = logging.getLogger("agentapi.mcp")

CONNECT_TIMEOUT: Final = 20.0
"""Seconds that a server has to start and to answer the handshake."""

LONGEST_PAUSE: Final = 30.0
"""Maximum seconds between two attempts to reach a server that is down."""

LISTEN_PAUSE: Final = 1.0
"""Seconds before a lost subscription to changes is renewed."""

LONGEST_REASON: Final = 1_000
"""Maximum bytes of an error text."""

_NO_SESSION: Final = frozenset({INVALID_REQUEST, CONNECTION_CLOSED, -32001})
"""Error codes of HTTP servers for a session that they do not know, or no longer know."""


class McpSession:
    """A session with one server. Used from one event loop."""

    def __init__(self, server: McpEndpoint) -> None:
        self._server = server
        # All turns of the process share the session: one of them connects, the others wait.
        self._connecting = asyncio.Lock()
        self._life: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._end = asyncio.Event()
        self._tools: tuple[Tool, ...] | None = None
        self._remembers = True
        self._changes = 0
        self._failures = 0
        self._not_before = 0.0
        self._status: int | None = None

    async def tools(self) -> tuple[Tool, ...]:
        """Return the server's tools; cached until they change or the session breaks.

        Raises:
            ToolServerUnavailable: The server cannot be reached.
        """
        while self._tools is None or not self._remembers:
            known = self._client
            client = await self._connected()
            try:
                async with asyncio.timeout(self._server.timeout):
                    changes = self._changes
                    found = await all_tools(client)
            except Exception as error:
                await self._broke(client)
                # A session that broke while idle is reopened immediately, without a failure.
                if client is not known:
                    raise self._away(error) from error
                continue
            tools = tuple(tool for tool in found[:MOST_TOOLS] if is_usable(tool))
            # A change that was reported while the list was read makes it good for this call only.
            if changes == self._changes:
                self._tools = tools
                if left_out := len(found) - len(tools):
                    log.warning(line("mcp.left_out", server=self._server.name, tools=left_out))
            return tools
        return self._tools

    async def call(self, name: str, arguments: dict[str, Any], *, repeat: bool) -> CallToolResult:
        """Call a tool.

        Args:
            name: The server's name of the tool.
            arguments: Its arguments.
            repeat: Whether the call may be repeated when its outcome is unknown.

        Raises:
            ToolFailed: The call gave no result; the message says why.
        """
        # Twice at most: a server that breaks every session must not keep the turn in a loop.
        for last in (False, True):
            try:
                client = await self._connected()
            except ToolServerUnavailable as error:
                raise ToolFailed(f"{error}; the call was not made") from error
            try:
                return await client.call_tool(
                    name, arguments, read_timeout_seconds=self._server.timeout
                )
            except Exception as error:
                fate = _fate(error)
                if fate is _Fate.TOLD:
                    raise ToolFailed(_told(error)) from error
                await self._broke(client)
                if last or not (repeat or fate is _Fate.NOT_MADE):
                    raise ToolFailed(self._gone(fate)) from error
        raise AssertionError("the last try returns or raises")

    def _gone(self, fate: _Fate) -> str:
        if fate is _Fate.NOT_MADE:
            return f"MCP server {self._server.name!r} does not keep sessions: the call was not made"
        return (
            f"the connection to MCP server {self._server.name!r} broke during the call: its "
            "outcome is unknown, and it was not repeated. Find out before you repeat it."
        )

    async def aclose(self) -> None:
        """Close the session, and stop the server if it was started for it."""
        self._end.set()
        if self._life is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(self._life, return_exceptions=True), 5)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is not None and self._life is not None and not self._life.done():
                return self._client
            # All turns share the pause too: otherwise each of them would try a server that is down.
            pause = self._not_before - time.monotonic()
            if pause > 0:
                raise self._away("the next attempt is soon", retry_after=pause)
            # A new event: the last session may still be closing and must keep its own.
            self._end = asyncio.Event()
            self._forget()
            self._remembers = True
            self._status = None
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(ready, self._end))
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    # Shielded: the timeout ends the wait, while `_live` still settles the future.
                    self._client = await asyncio.shield(ready)
            except BaseException as error:
                # Also when the waiting turn is cancelled: nobody would close the session later.
                self._life.cancel()
                if not isinstance(error, Exception):
                    raise
                self._failures += 1
                pause = min(2.0 ** (self._failures - 1), LONGEST_PAUSE)
                self._not_before = time.monotonic() + pause
                raise self._away(error, retry_after=pause) from error
            self._failures = 0
            return self._client

    async def _live(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        """Keep the session open. The SDK requires the task that opened it to close it."""

        async def listen(message: object) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._forget()

        try:
            async with (
                _transport(self._server, self._note) as transport,
                Client(transport, message_handler=listen) as client,
            ):
                ready.set_result(client)
                watching = asyncio.create_task(self._watch(client, end))
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
            self._forget()
            # Mark the error as retrieved: the waiter may be gone.
            if ready.done() and not ready.cancelled():
                ready.exception()

    async def _watch(self, client: Client, end: asyncio.Event) -> None:
        """Drop the cached tools when they change. Older servers notify without a subscription."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self._forget()
                    async for _ in changes:
                        self._forget()
            except ListenNotSupportedError:
                return
            except MCPError as error:
                if error.code == CONNECTION_CLOSED:
                    end.set()
                # The server does not report changes, so it is asked before each model call.
                self._remembers = False
                return
            except SubscriptionLost:
                self._forget()
            await asyncio.sleep(LISTEN_PAUSE)

    def _forget(self) -> None:
        self._tools = None
        self._changes += 1

    async def _broke(self, client: Client) -> None:
        """Drop a broken session, unless another call has already done so."""
        # Several calls may fail in one session; only the first may close it, or it would close the
        # next.
        if self._client is client:
            self._client = None
            self._forget()
            await self.aclose()

    async def _note(self, response: httpx2.Response) -> None:
        """Remember an error status: the SDK's exception does not contain it."""
        self._status = response.status_code if response.is_error else None

    def _away(
        self, error: BaseException | str, retry_after: float | None = None
    ) -> ToolServerUnavailable:
        # The beginning of the server's text is enough.
        why = error if isinstance(error, str) else cut(clean_text(_reason(error)), LONGEST_REASON)
        if self._status is not None:
            why = f"{why} (HTTP {self._status})"
        return ToolServerUnavailable(
            f"MCP server {self._server.name!r} cannot be used: {why}; is it running, and is the "
            "agent's McpServer(...) correct?",
            server=self._server.name,
            status=self._status,
            retry_after=retry_after,
        )


class _Fate(Enum):
    """What happened to a call without a result."""

    TOLD = auto()
    """The server or the SDK reported an error; the session is still usable."""
    LOST = auto()
    """The session broke; the outcome is unknown."""
    NOT_MADE = auto()
    """The server does not know the session, because it restarted or closed it."""


def _fate(error: Exception) -> _Fate:
    if isinstance(error, MCPError):
        if error.code in _NO_SESSION and "session" in error.message.lower():
            return _Fate.NOT_MADE
        return _Fate.LOST if error.code == CONNECTION_CLOSED else _Fate.TOLD
    gone = (OSError, httpx2.HTTPError, ClosedResourceError, BrokenResourceError)
    return _Fate.LOST if isinstance(error, gone) else _Fate.TOLD


def _told(error: Exception) -> str:
    """Describe the error of a call with an intact session to the model."""
    if not isinstance(error, MCPError):
        return f"the call was made, but its result does not match the tool's output schema: {error}"
    if error.code == REQUEST_TIMEOUT:
        return "the tool did not answer in time: its outcome is unknown"
    return error.message


def _reason(error: BaseException) -> str:
    """The text of an error; of a group, the text of its first error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


@asynccontextmanager
async def _transport(
    server: McpEndpoint, note: Callable[[httpx2.Response], Any]
) -> AsyncIterator[Any]:
    if server.url is not None:
        async with httpx2.AsyncClient(
            headers=server.headers,
            timeout=httpx2.Timeout(server.timeout, connect=CONNECT_TIMEOUT),
            event_hooks={"response": [note]},
        ) as http:
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


class Sessions(LoopClients[McpEndpoint, McpSession]):
    """The sessions of each event loop."""

    def of(self, server: McpEndpoint) -> McpSession:
        """Return the running loop's session with a server."""
        return self.get(server, lambda: McpSession(server))


sessions: Final = Sessions()
