"""An HTTP server that sends any bytes it is told to, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tests.fuzz.answers import Answer, Ending

Answering: TypeAlias = Callable[[str, str, Any], Answer]
"""What a server answers, by method, path and body of a request."""


NOT_JSON: Final = "not JSON"
"""Stands in a parsed request for NaN and infinity, which servers refuse."""


def _marked(constant: str) -> str:
    return f"{NOT_JSON}: {constant}"


@dataclass(kw_only=True)
class OddServer:
    """A server; `url` is known once it runs."""

    answering: Answering
    url: str = ""

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
        method, path, _ = head.split(" ", 2)
        answer = self.answering(method, path, json.loads(body or b"null", parse_constant=_marked))
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
def odd_server(answering: Answering) -> Iterator[OddServer]:
    """A server that runs until the block ends."""
    server = OddServer(answering=answering)
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
