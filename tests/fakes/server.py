"""A local HTTP server that follows a script: one behaviour for each request, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

Behaviour: TypeAlias = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class WireServer:
    """Records the requests that it receives, and answers as scripted."""

    url: str = ""
    script: deque[Behaviour] = field(default_factory=deque)
    looks: deque[Behaviour] = field(default_factory=deque)
    looked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def will(self, *behaviours: Behaviour) -> None:
        self.script.extend(behaviours)

    def will_list(self, *behaviours: Behaviour) -> None:
        """Script the answers to GET, which checks of providers use; 404 after the last one."""
        self.looks.extend(behaviours)

    async def look(self, request: web.Request) -> web.StreamResponse:
        self.looked.append((request.path_qs, dict(request.headers)))
        return await (self.looks.popleft() if self.looks else status(404, {}))(request, {})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path_qs)
        return await self.script.popleft()(request, body)


@asynccontextmanager
async def serving() -> AsyncIterator[WireServer]:
    server = WireServer()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.answer)
    app.router.add_get("/{path:.*}", server.look, allow_head=False)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def status(code: int, body: Any, **headers: str) -> Behaviour:
    """An answer with a status. Header names are written with underscores."""

    async def behave(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=code, headers=named)

    return behave


def text(content: str) -> Behaviour:
    """An answer with the content type of JSON."""

    async def behave(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text=content, content_type="application/json")

    return behave


def sse(*payloads: str, cut: bool = False, newline: str = "\n\n") -> Behaviour:
    """A stream of server-sent events; `cut` closes the connection in the middle."""

    async def behave(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for payload in payloads:
            await response.write(f"data: {payload}{newline}".encode())
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return behave


def hang_up() -> Behaviour:
    """Close the connection without an answer."""

    async def behave(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    return behave


def silent(first: str = "") -> Behaviour:
    """Begin an answer, send nothing more, and wait until the client disconnects."""

    async def behave(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(first.encode())
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return response

    return behave
