"""A model with a small context and short replies, behind the APIs of OpenAI and Gemini.

It runs in a separate thread, so that worker processes can call it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from agentapi.conversation.finish import CONTINUE
from tests.fakes import chat, gemini
from tests.fakes.server import Behaviour

CONTEXT = 300
"""Maximum tokens of a request; a token has 4 characters."""

PART = 40
"""Maximum characters of a reply."""


@dataclass(frozen=True)
class Said:
    """A message as the model sees it, from either API."""

    role: str
    text: str


@dataclass
class SmallModel:
    """The requests that the model received, and its lock.

    Attributes:
        asked: For each request: the user's message, and the text of the reply so far, or None if
            the request was too long.
        held: While it is set, the third part of a reply is delayed.
    """

    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        of_gemini = "contents" in body
        said = _of_gemini(body) if of_gemini else _of_openai(body)
        tokens = sum(len(message.text) for message in said) // 4
        begun = ""
        if said[-1] == Said("user", CONTINUE):
            begun, said = said[-2].text, said[:-2]
        self.asked.append((said[-1].text, None if tokens > CONTEXT else begun))
        if tokens > CONTEXT:
            return await _refuse(of_gemini, tokens)(request, body)
        while len(begun) > PART and self.held.is_set():  # noqa: ASYNC110 - in another thread
            await asyncio.sleep(0.02)
        whole = reply_to(said[-1].text)
        rest = whole.removeprefix(begun)
        streams = "stream" in request.path or bool(body.get("stream"))
        behave = _say(of_gemini, rest[:PART], cut=len(rest) > PART, streams=streams)
        return await behave(request, body)

    def parts_of(self, message: str) -> list[str | None]:
        """The text of the reply so far in each request for a reply to the message."""
        return [begun for said, begun in self.asked if said == message]


def reply_to(message: str) -> str:
    """The model's complete reply."""
    return f"You said: {message}"


def _of_openai(body: dict[str, Any]) -> list[Said]:
    return [Said(message["role"], message["content"] or "") for message in body["messages"]]


def _of_gemini(body: dict[str, Any]) -> list[Said]:
    return [
        Said(content["role"], "".join(part.get("text", "") for part in content["parts"]))
        for content in body["contents"]
    ]


def _refuse(of_gemini: bool, tokens: int) -> Behaviour:
    if of_gemini:
        return gemini.error(
            400,
            f"The input token count ({tokens}) exceeds the maximum number of tokens allowed "
            f"({CONTEXT}).",
            "INVALID_ARGUMENT",
        )
    return chat.error(
        400,
        f"This model's maximum context length is {CONTEXT} tokens. However, your messages resulted "
        f"in {tokens} tokens. Please reduce the length of the messages.",
        kind="context_length_exceeded",
    )


def _say(of_gemini: bool, text: str, *, cut: bool, streams: bool) -> Behaviour:
    if of_gemini:
        finish = "MAX_TOKENS" if cut else "STOP"
        if streams:
            return gemini.streamed(gemini.body({"text": text}, finish=finish))
        return gemini.reply({"text": text}, finish=finish)
    finish = "length" if cut else "stop"
    if streams:
        return chat.streamed(text, finish=finish)
    return chat.reply(text, finish=finish)


@contextmanager
def small_model() -> Iterator[SmallModel]:
    """Serve the model until the block ends."""
    model, ready, loop = SmallModel(), threading.Event(), asyncio.new_event_loop()

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{path:.*}", model.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def run() -> None:
        runner = loop.run_until_complete(serve())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield model
    finally:
        model.held.clear()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
