"""Answers of a server that speaks Chat Completions, plain and streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import Agent
from agentapi.providers.openai.client import OpenAIProvider
from tests.fakes import chat
from tests.fuzz.answers import (
    Answer,
    PlainAnswer,
    StreamAnswer,
    fine,
    fine_stream,
    plain_answers,
    stream_answers,
)
from tests.fuzz.targets.providers import ProviderTarget, look
from tests.fuzz.values import CANARY

USAGE: Final = chat.USAGE
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def completion(message: dict[str, Any], finish: str) -> dict[str, Any]:
    """A plain answer."""
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "odd",
        "choices": [choice],
        "usage": USAGE,
    }


def _says(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None, **more}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chat.chunk(delta, finish))
    return found


_CALLS: Final = [
    chat.call("call_a", "look", json.dumps({"at": CANARY})),
    chat.call("call_b", "look", json.dumps({"at": "b"})),
]
_LAST: Final = json.loads(chat.usage_chunk())

PLAIN: Final[dict[str, Any]] = {
    "text": completion(_says(f"{CANARY} says hello \U0001f600"), "stop"),
    "calls": completion(_says(None, tool_calls=_CALLS), "tool_calls"),
    "refusal": completion(_says(None) | {"refusal": CANARY}, "stop"),
    "error": {"error": {"message": CANARY, "type": "e", "param": None, "code": "c"}},
}

STREAMS: Final[dict[str, list[Any]]] = {
    "text": [
        _chunk({"role": "assistant", "content": ""}),
        _chunk({"content": f"{CANARY} says "}),
        _chunk({"content": "hello \U0001f600"}),
        _chunk({}, "stop"),
        _LAST,
        "[DONE]",
    ],
    "calls": [
        _chunk({"role": "assistant", "content": None}),
        _chunk({"tool_calls": [{"index": 0, **chat.call("call_a", "look", "")}]}),
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]}),
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": f'"{CANARY}"}}'}}]}),
        _chunk({"tool_calls": [{"index": 1, **chat.call("call_b", "look", "{}")}]}),
        _chunk({}, "tool_calls"),
        _LAST,
        "[DONE]",
    ],
}


def otherwise(model: str, stream: bool, request: Any) -> Answer:
    """A tool call for a message of the user, and what the user said for its result."""
    messages = request["messages"]
    said = next(m["content"] for m in reversed(messages) if m["role"] == "user")
    asks = messages[-1]["role"] == "user" and model == "fine"
    if stream:
        name = "calls" if asks else "text"
        events = STREAMS[name]
        text = [_chunk({"content": f"Heard: {said}"}), _chunk({}, "stop"), _LAST, "[DONE]"]
        return fine_stream(events if asks else text)
    if asks:
        return fine(PLAIN["calls"])
    return fine(completion(_says(f"Heard: {said}"), "stop"))


def problems(request: Any) -> list[str]:
    """What OpenAI would refuse in a request."""
    found: list[str] = []
    waiting: list[str] = []
    for message in request["messages"]:
        role, content = message.get("role"), message.get("content")
        calls = message.get("tool_calls") or []
        if role not in ("system", "user", "assistant", "tool"):
            found.append(f"role {role!r}")
        if waiting and role != "tool":
            found.append(f"calls without a result: {waiting}")
        if not isinstance(content, str | list) and not (content is None and calls):
            found.append(f"content is a {type(content).__name__}")
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                found.append(f"a result of no call: {message.get('tool_call_id')!r}")
            else:
                waiting.remove(message["tool_call_id"])
        else:
            waiting = [str(call.get("id")) for call in calls]
        for call in calls:
            found += _problems_of_call(call)
        if len(set(waiting)) != len(waiting):
            found.append(f"one id for several calls: {waiting}")
    if waiting:
        found.append(f"calls without a result at the end: {waiting}")
    return found


def _problems_of_call(call: Any) -> list[str]:
    found: list[str] = []
    function = call.get("function", {})
    if not isinstance(call.get("id"), str) or not 0 < len(call["id"]) <= 40:
        found.append(f"call id {call.get('id')!r:.60}")
    if not _TOOL_NAME.fullmatch(str(function.get("name"))):
        found.append(f"function name {function.get('name')!r:.60}")
    if not isinstance(function.get("arguments"), str):
        found.append("arguments are not text")
    return found


def agents() -> Sequence[Agent]:
    """The victim, and the innocent on the same connections."""
    return [
        Agent(name="odd-chat", provider="odd-chat", model="odd", tools=[look], max_steps=4),
        Agent(name="fine-chat", provider="fine-chat", model="fine", tools=[look]),
    ]


class ChatTarget(ProviderTarget):
    """See the module."""

    name = "chat"
    examples = 120

    def answers(self) -> st.SearchStrategy[PlainAnswer | StreamAnswer]:
        """See `ProviderTarget.answers`."""
        return st.one_of(plain_answers(list(PLAIN)), stream_answers(list(STREAMS)))

    def answer(self, example: PlainAnswer | StreamAnswer) -> Answer:
        """See `ProviderTarget.answer`."""
        if isinstance(example, PlainAnswer):
            return example.answer(PLAIN)
        return example.answer(STREAMS)

    def problems(self, request: Any) -> list[str]:
        """See `ProviderTarget.problems`."""
        return problems(request)

    @staticmethod
    def client(url: str) -> OpenAIProvider:
        """The provider's client."""
        return OpenAIProvider(api_key="sk-fuzz", base_url=f"{url}/v1", timeout=5)
