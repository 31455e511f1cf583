"""Limits of HTTP connections, which cost a client nothing to hold open.

uvicorn limits only how long a connection may be idle between two requests. `GuardedProtocol` also
limits the time for a request's head, for the rest of a body that no route reads, and for a client
to read an answer. It limits the number of connections too: beyond it, the connection that has been
silent longest is closed. Bodies that a route reads have limits of their own (`BodyReader`).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, cast

import h11
import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from agentapi.logs import line
from orchestrator.gateway.http.errors import InvalidRequest, Stopping, problem_of

log = logging.getLogger("agentapi.gateway")

_FULL: Final = Stopping(
    "this gateway has reached its limit of connections (AGENTAPI_GATEWAY_CONNECTIONS)",
    code="too_many_connections",
)
_MALFORMED: Final = InvalidRequest("the request is not valid HTTP", code="invalid_http")
_REASONS: Final = {400: b"Bad Request", 503: b"Service Unavailable"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """The limits. Times are in seconds.

    Attributes:
        connections: How many may be open at the same time.
        head: How long a request's head may take to arrive.
        rest: How long the rest of a body may take to arrive after the answer.
        stall: How long a client may read nothing of an answer.
    """

    connections: int
    head: float
    rest: float
    stall: float


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration with limits of connections.

    Attributes:
        limits: The limits.
        silent: Connections without a request, the one that has been silent longest first.
    """

    def __init__(self, app: Any, limits: ConnectionLimits, **options: Any) -> None:
        """Configure uvicorn.

        Args:
            app: The application.
            limits: The limits of connections.
            options: uvicorn's own options.
        """
        super().__init__(app, http=GuardedProtocol, ws="none", **options)
        self.limits = limits
        self.silent: dict[GuardedProtocol, None] = {}


class GuardedProtocol(H11Protocol):
    """One connection, with a timer for what the client has to send next."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        guarded = cast("GuardedConfig", config)
        self._limits, self._silent = guarded.limits, guarded.silent
        self._timer: asyncio.TimerHandle | None = None
        self._expected: str | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or make room for it, or refuse it."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            # Connections that send nothing are closed first, not clients with a request.
            longest = next(iter(self._silent), None)
            if longest is None:
                # Every connection serves a request, so the new one is refused.
                transport.write(_answer(_FULL))
                transport.close()
                return
            del self._silent[longest]
            longest.transport.abort()
        self._silent[self] = None
        self._expect("head", self._limits.head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._expect(None)
        self._reads_again()
        self._silent.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        """The response was sent; the next request may already have been read."""
        super().on_response_complete()
        self._update_timer()

    def pause_writing(self) -> None:
        """The client has stopped reading."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._limits.stall, self._drop)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._reads_again()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; drop it if the client does not read the remaining data."""
        super().timeout_keep_alive_handler()
        # Closing waits until the client has read what is buffered, which may be never.
        self.loop.call_later(self._limits.stall, self.transport.abort)

    def _drop(self) -> None:
        log.warning(line("connection.dropped", why="stalled", seconds=self._limits.stall))
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP with the error object, unless an answer has been begun."""
        if self.cycle is not None and self.cycle.response_started != self.cycle.response_complete:
            self.transport.abort()
            return
        self.transport.write(_answer(_MALFORMED))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        # Requests to upgrade are answered as plain requests and are not worth a log line.
        pass

    def _update_timer(self) -> None:
        """Start or stop the timer, by what the client has to send next."""
        their_state = self.conn.their_state
        if their_state is not h11.IDLE:
            self._silent.pop(self, None)
        elif not self.transport.is_closing():
            self._silent.setdefault(self)
        if their_state is h11.IDLE:
            if self.cycle is None or self.conn.trailing_data[0]:
                self._expect("head", self._limits.head)
            elif self.timeout_keep_alive_task is None:
                self._expect("request", self.timeout_keep_alive)
            else:
                self._expect(None)
        # Answered early, for example refused: the rest of the body is only drained.
        elif their_state is h11.SEND_BODY and self.cycle.response_complete:
            self._expect("rest", self._limits.rest)
        else:
            self._expect(None)

    def _expect(self, what: str | None, seconds: float = 0.0) -> None:
        """Start the timer for something. If it already runs for that, it continues."""
        # Bytes do not restart it, because sending slowly must not extend the time.
        if what == self._expected:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._expected, self._timer = what, None
        if what is not None and not self.transport.is_closing():
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _reads_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _answer(error: InvalidRequest | Stopping) -> bytes:
    problem = problem_of(error)
    body = orjson.dumps(problem.body())
    head = (
        b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n"
    )
    return head % (problem.status, _REASONS[problem.status], len(body)) + body
