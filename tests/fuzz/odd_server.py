"""An HTTP server that sends any bytes it is told to, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.fuzz.answers import Answer, Ending

_MODEL = re.compile(r"/models/([^:/]+):")

Otherwise: TypeAlias = Callable[[str, bool, Any], Answer]
"""What is answered when nothing was told: by model, whether to stream, and request."""


@dataclass
class OddServer:
    """Answers each model as it was told; what it was not told about gets a valid answer."""

    otherwise: Otherwise
    url: str = ""
    scripts: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def will(self, model: str, *answers: Answer) -> None:
        """Let a model's next requests get these answers, and none that was left from before."""
        self.requests[model].clear()
        self.scripts[model] = deque(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"content-length: (\d+)", head, re.I)
        body = await reader.readexactly(int(length[1]) if length else 0)
        path = head.split(" ", 2)[1]
        sent: dict[str, Any] = json.loads(body or b"{}")
        named = _MODEL.search(path)
        model = named[1] if named else str(sent.get("model"))
        self.requests[model].append(sent)
        stream = bool(sent.get("stream")) or "stream" in path
        script = self.scripts[model]
        answer = script.popleft() if script else self.otherwise(model, stream, sent)
        writer.write(answer.head())
        for piece in answer.pieces():
            writer.write(piece)
            await writer.drain()
        match answer.manner.ending:
            case Ending.ABORT:
                writer.transport.abort()
            case Ending.HANG:
                # Until the client goes.
                await reader.read()
        return answer.manner.ending is Ending.KEEP and "Connection: close" not in (
            answer.head().decode("latin-1")
        )


@contextmanager
def odd_server(otherwise: Otherwise) -> Iterator[OddServer]:
    """A server that runs until the block ends."""
    server = OddServer(otherwise)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="odd-server", daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**26)

    async def stop() -> None:
        listener.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    listener = asyncio.run_coroutine_threadsafe(start(), loop).result()
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
