"""The process's one event loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

from agentapi.providers import providers
from agentapi.tools.mcp import close_sessions


class LoopThread:
    """Runs agent loops and all provider connections. Nothing that blocks may run on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="agentapi-loop", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connections to providers and MCP servers, and end the thread."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=5)
        if not self.loop.is_running():
            self.loop.close()

    async def _close(self) -> None:
        await close_sessions()
        await providers.aclose()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
