"""A network between a worker and its servers that can be cut: proxies on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Self


class Network(StrEnum):
    """What a proxy does with what it gets."""

    WELL = "well"
    """It passes all on."""
    HANGS = "hangs"
    """It passes nothing on and says nothing, as when packets are dropped."""
    CUT = "cut"
    """It ends all connections and takes no new ones."""
    LOSES_ANSWERS = "loses answers"
    """It passes commands on and keeps what is answered; the connections end when it is healed."""


class Proxy:
    """One proxy before one server.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._state = Network.WELL
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port, which stays the same."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def become(self, state: Network) -> None:
        """Change what it does, for connections that are there and those to come."""
        before, self._state = self._state, state
        if before is Network.LOSES_ANSWERS or state is Network.CUT:
            self._end_all()
        if state is Network.HANGS:
            self._flows.clear()
        else:
            self._flows.set()
        if state is not Network.CUT and self._server is None:
            await self.start()
        elif state is Network.CUT and self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """End it with all connections."""
        await self.become(Network.CUT)

    def _end_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state is Network.CUT:
            # Accepted just before the cut, which did not see it.
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            # A server that is not there refuses, and so does this.
            with contextlib.suppress(OSError):
                upstream, to_upstream = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(to_upstream)
                try:
                    await asyncio.gather(
                        self._pass(reader, to_upstream, answers=False),
                        self._pass(upstream, writer, answers=True),
                    )
                finally:
                    self._writers.discard(to_upstream)
                    to_upstream.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while data := await source.read(65_536):
                await self._flows.wait()
                if answers and self._state is Network.LOSES_ANSWERS:
                    continue
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()


class Proxies:
    """Any number of proxies, on one event loop in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._all: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for proxy in self._all:
            self._do(proxy.stop())
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def before(self, port: int) -> Proxy:
        """A new proxy before a server on the loopback interface."""
        proxy = Proxy(port)
        self._do(proxy.start())
        self._all.append(proxy)
        return proxy

    def become(self, proxy: Proxy, state: Network) -> None:
        """See `Proxy.become`."""
        self._do(proxy.become(state))

    async def _finish(self) -> None:
        # All connections were aborted: what handles them comes to its end, and closes them.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=50)
        for _ in range(5):
            await asyncio.sleep(0)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)
