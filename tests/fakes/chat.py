"""Chat Completions in the form in which OpenAI sends them."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.server import Behaviour, sse, status

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def call(identifier: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": identifier,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def reply(
    content: str | None = None, *calls: dict[str, Any], finish: str | None = None
) -> Behaviour:
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = list(calls)
    reason = finish or ("tool_calls" if calls else "stop")
    return status(
        200,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": USAGE,
        },
    )


def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            "usage": None,
        }
    )


def usage_chunk() -> str:
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    )


def streamed(*pieces: str, finish: str = "stop") -> Behaviour:
    return sse(
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in pieces),
        chunk({}, finish),
        usage_chunk(),
        "[DONE]",
    )


def streamed_call(identifier: str, name: str, *arguments: str) -> Behaviour:
    first = {"index": 0, "id": identifier, "type": "function"}
    return sse(
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [{**first, "function": {"name": name, "arguments": ""}}]}),
        *(
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
            for piece in arguments
        ),
        chunk({}, "tool_calls"),
        usage_chunk(),
        "[DONE]",
    )


def error(code: int, message: str, *, kind: str | None = None, **headers: str) -> Behaviour:
    body = {"error": {"message": message, "type": "error", "param": None, "code": kind}}
    return status(code, body, **headers)
