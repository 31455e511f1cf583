"""The event loop of the process, in its own thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, Final

from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import LOOP_LAG
from agentapi.providers import providers
from agentapi.supervision import Service, Supervisor, stack_of_thread
from agentapi.tools.mcp.server import close_sessions
from workers.upkeep.liveness import starved

log = logging.getLogger("agentapi.loop")

TICK: Final = 1.0
"""Seconds between two signs of life of the loop."""

CLOSES_WITHIN: Final = 10.0
"""Time limit for closing connections to providers and MCP servers, in seconds."""


class LoopThread:
    """Runs agent loops and all provider connections. Nothing on it may block.

    A `SystemExit` or `KeyboardInterrupt` from any callback or task ends asyncio's loop, and so does
    a `stop` by foreign code. The service then runs the loop again, and its tasks continue.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_log_unhandled)
        self._service = supervisor.thread("agentapi-loop", self._run)
        self._ident = self._native_id = 0
        self._ticking = False

    def start(self) -> None:
        """Start the thread."""
        self._service.start()

    def stop(self) -> None:
        """Close the connections to providers and MCP servers, and end the thread."""
        if not self._ident or self.loop.is_closed():
            return
        try:
            # On the loop, because the connections belong to it.
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(CLOSES_WITHIN)
        except BaseException as error:
            # A user's provider may raise anything; the thread must still stop.
            log.warning(line("loop.not_closed", error=type(error).__name__))
        if self._service.stop(wake=self._end):
            self.loop.close()

    def where(self) -> str:
        """The stack of the loop's thread, as code locations."""
        return stack_of_thread(self._ident)

    def starved(self) -> float:
        """Seconds for which the loop's thread was ready to run but got no processor."""
        return starved(self._native_id)

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def _close(self) -> None:
        try:
            await close_sessions()
        finally:
            await providers.aclose()

    def _run(self, service: Service) -> None:
        self._ident, self._native_id = threading.get_ident(), threading.get_native_id()
        asyncio.set_event_loop(self.loop)
        if not self._ticking:
            # Once: a loop that is run again after an error still has its scheduled calls.
            self._ticking = True
            self._tick(service)
        self.loop.run_forever()

    def _tick(self, service: Service, due: float | None = None) -> None:
        now = self.loop.time()
        if due is not None:
            recorder().observe(LOOP_LAG, now - due)
        self.loop.call_at(now + TICK, self._tick, service, now + TICK)
        service.progress()


def _log_unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody retrieves: its type only, since its text may quote users."""
    error = context.get("exception")
    kind = type(error).__name__ if error is not None else "none"
    log.error(line("loop.unhandled", error=kind, what=context.get("message", "")))
