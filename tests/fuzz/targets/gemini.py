"""Answers of a server that speaks Gemini's generateContent, plain and streamed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import Agent
from agentapi.providers.gemini.client import GeminiProvider
from tests.fakes import gemini
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

_SIGNATURE: Final = base64.b64encode(b"signed").decode()
_CALLS: Final = [
    gemini.call("look", {"at": CANARY}, id="g1", thoughtSignature=_SIGNATURE),
    gemini.call("look", {"at": "b"}),
]
_THOUGHT: Final = {"text": f"{CANARY} thinks", "thought": True, "thoughtSignature": _SIGNATURE}

PLAIN: Final[dict[str, Any]] = {
    "text": gemini.body(_THOUGHT, {"text": f"{CANARY} says hello \U0001f600"}),
    "calls": gemini.body(*_CALLS),
    "blocked": {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": gemini.USAGE},
    "error": {"error": {"code": 400, "message": CANARY, "status": "X", "details": [{"a": 1}]}},
}

STREAMS: Final[dict[str, list[Any]]] = {
    "text": [
        gemini.body({"text": f"{CANARY} says "}, finish=None),
        gemini.body({"text": "hello \U0001f600"}, finish=None),
        gemini.body({"text": "."}),
    ],
    "calls": [
        gemini.body(_CALLS[0], finish=None),
        gemini.body(_CALLS[1], finish=None),
        gemini.body({"text": ""}),
    ],
}


def otherwise(model: str, stream: bool, request: Any) -> Answer:
    """A tool call for a message of the user, and what the user said for its result."""
    said = [c["parts"][0]["text"] for c in request["contents"] if "text" in c["parts"][0]]
    asks = "functionResponse" not in request["contents"][-1]["parts"][-1] and model == "fine"
    answer = PLAIN["calls"] if asks else gemini.body({"text": f"Heard: {said[-1]}"})
    return fine_stream([answer]) if stream else fine(answer)


def problems(request: Any) -> list[str]:
    """What Gemini would refuse in a request."""
    found: list[str] = []
    waiting = 0
    for content in request["contents"]:
        parts = content.get("parts")
        if content.get("role") not in ("user", "model") or not isinstance(parts, list) or not parts:
            found.append(f"content of {content.get('role')!r} with parts {parts!r:.60}")
            continue
        calls = sum("functionCall" in part for part in parts)
        results = sum("functionResponse" in part for part in parts)
        if results != waiting:
            found.append(f"{results} results for {waiting} calls")
        waiting = calls
        found += [f"part {part!r:.60}" for part in parts if not _is_part(part)]
    return found


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    named = [part.get("functionCall"), part.get("functionResponse")]
    if any(call is not None and not isinstance(call.get("name"), str) for call in named):
        return False
    return any(
        name in part
        for name in ("text", "functionCall", "functionResponse", "inlineData", "fileData")
    )


def agents() -> Sequence[Agent]:
    """The victim, and the innocent on the same connections."""
    return [
        Agent(name="odd-gemini", provider="odd-gemini", model="odd", tools=[look], max_steps=4),
        Agent(name="fine-gemini", provider="fine-gemini", model="fine", tools=[look]),
    ]


class GeminiTarget(ProviderTarget):
    """See the module."""

    name = "gemini"
    examples = 100

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
    def client(url: str) -> GeminiProvider:
        """The provider's client."""
        return GeminiProvider(api_key="g-fuzz", base_url=url, timeout=5)
