"""How the gateway listens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agentapi.errors import ConfigurationError
from orchestrator.gateway.server import _listen


async def test_answers_are_sent_without_delay() -> None:
    """Nagle's algorithm would hold an answer's body back until the client acknowledges its head."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = _listen("127.0.0.1", 0)
    async with await asyncio.start_server(accepted, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await found != 0
        writer.close()
        await writer.wait_closed()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            _listen("127.0.0.1", port)
