"""Around every request: its id, authentication, the body, one log line, and unexpected errors."""

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

from agentapi.errors import AgentAPIError
from agentapi.logs import line
from orchestrator.gateway.http.authentication import PUBLIC_PATHS, Authenticator
from orchestrator.gateway.http.errors import Problem, problem_of
from orchestrator.gateway.http.request_body import BodyReader
from orchestrator.gateway.http.tracing import in_callers_trace
from orchestrator.gateway.measuring import count_refusal, count_request
from orchestrator.gateway.tenants.concurrency import RequestSlot

log = logging.getLogger("agentapi.gateway")

REQUEST_ID: Final = "x-request-id"

_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestGate:
    """The outermost middleware.

    It is pure ASGI, so that an error in the middle of a stream cuts the connection. Behind
    Starlette's ``middleware("http")`` the stream would look complete to the client.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator, bodies: BodyReader) -> None:
        """Wrap an application.

        Args:
            app: The application.
            authenticator: Decides which requests are served.
            bodies: Reads the bodies of requests.
        """
        self._app = app
        self._authenticator = authenticator
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            # No route takes websockets.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD" and _answers_head(scope["path"]):
            # The server omits the body of the response to a HEAD request.
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if _GIVEN.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        with in_callers_trace(headers):
            await self._answer(scope, headers, _Exchange(scope, request_id, send), receive)

    async def _answer(
        self, scope: Scope, headers: Headers, exchange: _Exchange, receive: Receive
    ) -> None:
        state = scope["state"]
        try:
            # Authenticate before reading the body, so that a client without a key cannot fill the
            # memory.
            await self._authenticator.authenticate(scope, headers)
            # The whole body is read here, so that routes never wait for a client while they hold a
            # slot.
            body = await self._bodies.read(receive, headers)
            # Only now, so that a client that sends its body slowly occupies no slot.
            await exchange.take_slot()
            await self._app(scope, _replay(body, receive), exchange.send)
        except AgentAPIError as error:
            await exchange.refuse(problem_of(error, state.get("tenant")))
        except Exception as error:
            # A traceback may quote users, so neither the log nor the client gets it.
            log.error(
                line(
                    "request.crashed",
                    request_id=state["request_id"],
                    error=type(error).__name__,
                    at=_place(error),
                )
            )
            # Once a response has begun, the only way to signal an error is to cut the body off.
            if exchange.status is None:
                await exchange.refuse(problem_of(error))
        finally:
            exchange.release_slot()
            exchange.log()


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, request_id: str, send: Send) -> None:
        self._scope = scope
        self._request_id = request_id
        self._send = send
        self._began = time.monotonic()
        self.status: int | None = None

    async def take_slot(self) -> None:
        slot: RequestSlot | None = self._scope["state"].get("slot")
        if slot is not None:
            await slot.acquire()

    def release_slot(self) -> None:
        slot: RequestSlot | None = self._scope["state"].get("slot")
        if slot is not None:
            slot.release()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # The work is done, so a stream or a slow reader occupies no slot.
            self.release_slot()
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._request_id
            allowance = self._scope["state"].get("allowance")
            for name, value in (allowance.headers() if allowance else {}).items():
                headers[name] = value
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        count_refusal(problem.status, problem.code)
        if answer := self._scope["state"].get("answer"):
            await answer(problem)(self._scope, _nothing, self.send)
            return
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
        """Log the route, not the path: ids of conversations may be personal."""
        route = getattr(self._scope.get("route"), "path", "-")
        seconds = time.monotonic() - self._began
        count_request(self._scope["method"], route, self.status, seconds)
        log.info(
            line(
                "request",
                method=self._scope["method"],
                route=route,
                status=self.status or "-",
                ms=round(seconds * 1000),
                request_id=self._request_id,
                tenant=self._scope["state"].get("tenant", "-"),
            )
        )


def _answers_head(path: str) -> bool:
    """Whether a path answers HEAD, which monitors and load balancers send."""
    return path in PUBLIC_PATHS or path == "/v1/models" or path.startswith("/v1/models/")


async def _nothing() -> Message:
    """Read nothing more of a refused client's request."""
    return {"type": "http.disconnect"}


def _place(error: Exception) -> str:
    """File and line of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "-"


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
