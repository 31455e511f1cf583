"""Server-sent events: frames, and a response that drops clients which stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import orjson
from fastapi.responses import Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.background import BackgroundTask
from starlette.types import Message, Receive, Scope, Send

from agentapi.logs import line

log = logging.getLogger("agentapi.gateway")

SIGN_OF_LIFE: Final = KEEPALIVE_COMMENT

HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Tells proxies to forward events immediately."""


def frame(data: Mapping[str, Any], *, event: str | None = None, number: int | None = None) -> bytes:
    """One event with JSON data.

    Args:
        data: The data.
        event: Its type.
        number: Its id, with which browsers resume. OpenAI's clients must not get one: after an
            ``id:`` line they mistake a comment for an event without data.
    """
    return format_sse_event(
        data_str=orjson.dumps(data).decode(),
        event=event,
        id=None if number is None else str(number),
    )


def comment(text: str) -> bytes:
    """A comment for people; clients skip it."""
    return format_sse_event(comment=text)


class EventStream(Response):
    """A stream of events. It ends when the client disconnects, or stops reading."""

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        stall: float,
        held: ExitStack | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        """Prepare the response.

        Args:
            frames: The events; its end ends the response.
            stall: Seconds for which the client may read nothing.
            held: Resources to release when the response has ended.
            headers: More headers.
            background: Done once the response has ended, also if the client left before.
        """
        self.status_code = 200
        self.background = background
        self._frames = frames
        self._stall = stall
        self._held = held or ExitStack()
        self.init_headers({**HEADERS, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        sending = asyncio.ensure_future(self._send(send))
        # Nothing else detects a client that disconnects while its turn is silent.
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, gone):
                task.cancel()
            # Released only after both tasks have ended: the slot counts until nothing is sent any
            # more.
            with self._held:
                await asyncio.gather(sending, gone, return_exceptions=True)
                await self._frames.aclose()
        if self.background is not None:
            await self.background()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await self._put(send, start)
            async for chunk in self._frames:
                await self._put(send, _body(chunk, more=True))
            await self._put(send, _body(b"", more=False))
        except _Stalled:
            # The body has no end, so that the client sees that the stream was cut.
            log.warning(line("stream.dropped", why="stalled", seconds=self._stall))

    async def _put(self, send: Send, message: Message) -> None:
        """Send; the server waits here while the client does not read."""
        try:
            # Back-pressure: `send` waits for the client, and events wait in the follower's buffer,
            # which has a limit of its own.
            async with asyncio.timeout(self._stall):
                await send(message)
        except TimeoutError:
            raise _Stalled from None


class _Stalled(Exception):
    """The client does not read."""


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _disconnect(receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
