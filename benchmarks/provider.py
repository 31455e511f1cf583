"""A model provider with a fixed speed: ``python -m benchmarks.provider PORT THINK GAP TOKENS``."""

from __future__ import annotations

import asyncio
import sys
import time

import orjson
from aiohttp import web


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    """One chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "fake",
        "choices": [choice],
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"


def completion(tokens: int) -> dict[str, object]:
    """A complete chat completion."""
    text = "".join(f"word{number} " for number in range(tokens))
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": tokens + 9},
    }


def app(think: float, gap: float, tokens: int) -> web.Application:
    """Create the server.

    Args:
        think: Seconds before the first token.
        gap: Seconds between two tokens.
        tokens: Number of tokens in an answer, unless the request sets it.
    """

    async def complete(request: web.Request) -> web.StreamResponse:
        began = asyncio.get_running_loop().time()
        asked = orjson.loads(await request.read())
        count = asked.get("max_completion_tokens", tokens)
        if not asked.get("stream"):
            await asyncio.sleep(think)
            return web.json_response(completion(count))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(count):
            due = began + think + number * gap
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await response.write(chunk({"content": f"word{number} "}))
        await response.write(chunk({}, "stop"))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    server = web.Application()
    server.router.add_post("/v1/chat/completions", complete)
    return server


def main() -> None:
    """Serve until stopped."""
    port, think, gap, tokens = sys.argv[1:]
    web.run_app(
        app(float(think), float(gap), int(tokens)),
        host="127.0.0.1",
        port=int(port),
        print=lambda *_: None,
        access_log=None,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
