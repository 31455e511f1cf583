"""Answers of generateContent in the form in which Gemini sends them."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.server import Behaviour, sse, status

USAGE = {
    "promptTokenCount": 12,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "cachedContentTokenCount": 2,
    "totalTokenCount": 19,
}


def body(*parts: dict[str, Any], finish: str | None = "STOP") -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": USAGE,
        "modelVersion": "m",
        "responseId": "r",
    }


def call(name: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    function = {"name": name, "args": args}
    if "id" in more:
        function["id"] = more.pop("id")
    return {"functionCall": function, **more}


def reply(*parts: dict[str, Any], finish: str | None = "STOP") -> Behaviour:
    return status(200, body(*parts, finish=finish))


def streamed(*bodies: dict[str, Any], cut: bool = False) -> Behaviour:
    return sse(*(json.dumps(each) for each in bodies), cut=cut, newline="\r\n\r\n")


def error(
    code: int, message: str, kind: str, details: list[Any] | None = None, **headers: str
) -> Behaviour:
    inner = {"code": code, "message": message, "status": kind, "details": details or []}
    return status(code, {"error": inner}, **headers)
