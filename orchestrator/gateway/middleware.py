"""Around every request: its id, one log line, the size of its body, and faults without a trace."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from typing import Any, Final

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.gateway.errors import Problem, TooLarge, problem_of

log = logging.getLogger("agentapi.gateway")

REQUEST_ID: Final = "x-request-id"

_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestGate:
    """Pure ASGI, so that a fault in the middle of a stream cuts the connection: behind
    Starlette's ``middleware("http")`` the client would take it for a clean end."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        """Stand before an app.

        Args:
            app: The app.
            max_body: Largest body in bytes.
        """
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if _GIVEN.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        exchange = _Exchange(scope, request_id, send)
        try:
            body = await _read(receive, headers, self._max_body)
            if body is None:
                await exchange.refuse(_too_large(self._max_body))
            else:
                await self._app(scope, _replay(body, receive), exchange.send)
        except Exception as error:
            # Neither here nor at the client: a traceback may show what people said.
            log.error(
                "request.crashed request_id=%s error=%s at=%s",
                request_id,
                type(error).__name__,
                _place(error),
            )
            if exchange.status is None:
                await exchange.refuse(problem_of(error))
        finally:
            exchange.log()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, request_id: str, send: Send) -> None:
        self._scope = scope
        self._request_id = request_id
        self._send = send
        self._began = time.monotonic()
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._request_id
            allowance = self._scope["state"].get("allowance")
            for name, value in (allowance.headers() if allowance else {}).items():
                headers[name] = value
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        body = orjson.dumps(problem.body())
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        start: Message = {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [
                (name.encode(), value.encode())
                for name, value in {**headers, **problem.headers}.items()
            ],
        }
        await self.send(start)
        await self._send({"type": "http.response.body", "body": body})

    def log(self) -> None:
        """The route and not the path: ids of conversations are the tenant's business."""
        route = getattr(self._scope.get("route"), "path", "-")
        log.info(
            "request method=%s route=%s status=%s ms=%.0f request_id=%s tenant=%s",
            self._scope["method"],
            route,
            self.status or "-",
            (time.monotonic() - self._began) * 1000,
            self._request_id,
            self._scope["state"].get("tenant", "-"),
        )


def _place(error: Exception) -> str:
    """File and line of the fault."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "-"


def _too_large(limit: int) -> Problem:
    return problem_of(
        TooLarge(f"the body is larger than {limit} bytes (AGENTAPI_GATEWAY_MAX_BODY_BYTES)")
    )


async def _read(receive: Receive, headers: Headers, limit: int) -> bytes | None:
    """The whole body, or None when it is too large; no more of it is kept than that."""
    declared = headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        return None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            return None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
