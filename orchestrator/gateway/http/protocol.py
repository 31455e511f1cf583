"""HTTP connections that nobody can hold for nothing.

uvicorn limits how long a connection may be idle between requests, and nothing else. Here a head
must come in time, what is left of a body that nobody reads too, an answer must be taken, and
there are at most so many connections: beyond them the one that has been silent longest makes room.
Bodies that are read have their own limits (`BodyReader`).
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
    "this gateway has as many connections as it may (AGENTAPI_GATEWAY_CONNECTIONS)",
    code="too_many_connections",
)
_MALFORMED: Final = InvalidRequest("the request is no valid HTTP", code="invalid_http")
_REASONS: Final = {400: b"Bad Request", 503: b"Service Unavailable"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """What a connection may take. Times are in seconds.

    Attributes:
        connections: How many there may be at once.
        head: For a request's head.
        rest: For the rest of a body after the answer.
        stall: For which a client may take nothing of an answer.
    """

    connections: int
    head: float
    rest: float
    stall: float


class GuardedConfig(uvicorn.Config):
    """uvicorn's, with limits for connections.

    Attributes:
        limits: What each connection may take.
        silent: Those without a request now, the one that was silent longest first.
    """

    def __init__(self, app: Any, limits: ConnectionLimits, **options: Any) -> None:
        """Make one.

        Args:
            app: The application.
            limits: What each connection may take.
            options: uvicorn's own.
        """
        super().__init__(app, http=GuardedProtocol, ws="none", **options)
        self.limits = limits
        self.silent: dict[GuardedProtocol, None] = {}


class GuardedProtocol(H11Protocol):
    """One connection, with a clock for what the client owes."""

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
        self._clock: asyncio.TimerHandle | None = None
        self._owes: str | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            longest = next(iter(self._silent), None)
            if longest is None:
                transport.write(_answer(_FULL))
                transport.close()
                return
            del self._silent[longest]
            longest.transport.abort()
        self._silent[self] = None
        self._owe("head", self._limits.head)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._owe(None)
        self._taken()
        self._silent.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """An answer was sent; the next request may have been read already."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client takes nothing now."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._limits.stall, self._drop)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`: the client takes again."""
        super().resume_writing()
        self._taken()

    def timeout_keep_alive_handler(self) -> None:
        """The connection was idle for long enough; what it never took is dropped."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self._limits.stall, self.transport.abort)

    def _drop(self) -> None:
        log.warning(line("connection.dropped", why="stalled", seconds=self._limits.stall))
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets the error object too, where an answer has its place."""
        if self.cycle is not None and self.cycle.response_started != self.cycle.response_complete:
            self.transport.abort()
            return
        self.transport.write(_answer(_MALFORMED))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        # A client's wish for another protocol is no news; it gets the answer of a plain request.
        pass

    def _look(self) -> None:
        """Start or stop the clock by what the client owes now."""
        theirs = self.conn.their_state
        if theirs is not h11.IDLE:
            self._silent.pop(self, None)
        elif not self.transport.is_closing():
            self._silent.setdefault(self)
        if theirs is h11.IDLE:
            if self.cycle is None or self.conn.trailing_data[0]:
                self._owe("head", self._limits.head)
            elif self.timeout_keep_alive_task is None:
                self._owe("request", self.timeout_keep_alive)
            else:
                self._owe(None)
        elif theirs is h11.SEND_BODY and self.cycle.response_complete:
            self._owe("rest", self._limits.rest)
        else:
            self._owe(None)

    def _owe(self, what: str | None, seconds: float = 0.0) -> None:
        """Let the client owe something; the clock goes on when it owed that already."""
        if what == self._owes:
            return
        if self._clock is not None:
            self._clock.cancel()
        self._owes, self._clock = what, None
        if what is not None and not self.transport.is_closing():
            self._clock = self.loop.call_later(seconds, self.transport.abort)

    def _taken(self) -> None:
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
