"""What producers may pass, what errors show of it, and what records may hold."""

from __future__ import annotations

from typing import Any

import pytest

from agentapi import load_settings
from agentapi.conversation.messages import ToolCall, Usage, from_dict
from agentapi.decoding.records import record_of
from agentapi.decoding.shown import LONGEST, shown
from agentapi.errors import InvalidInput, UnknownAgent, UnreadableRecord
from agentapi.stores.redis.codec import calibration_from, spent_from, summary_from, turn_from_hash
from agentapi.turns import Decision, TurnError, Verdict, step_from_json
from agentapi.turns.budget import Limits
from orchestrator.gateway.http.errors import LONGEST_MESSAGE, InvalidRequest, problem_of
from orchestrator.turn_request import TurnRequest, check_decision, new_turn


class Unspeakable:
    def __repr__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "'a\\nb'"),
        ("\ud83d", "'\\ud83d'"),
        (None, "None"),
        pytest.param(10**5000, "a int", id="long integer"),
        (Unspeakable(), "a Unspeakable"),
    ],
)
def test_values_in_errors(value: object, text: str) -> None:
    assert shown(value) == text
    text.encode()


def test_long_values_in_errors_are_short() -> None:
    assert len(shown("x" * 10**6)) <= LONGEST + 1
    assert len(shown(["x"] * 10**4)) <= LONGEST + 1


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("agent", "\ud83d", UnknownAgent),
        ("agent", "two words", UnknownAgent),
        ("agent", ["x"] * 1000, UnknownAgent),
        ("agent", "x" * 100_000, UnknownAgent),
        ("user_id", "\ud83d", InvalidInput),
        ("tenant_id", "a\udfff", InvalidInput),
        ("idempotency_key", "\ud83d", InvalidInput),
        ("stream", "yes", InvalidInput),
        ("stream", None, InvalidInput),
        ("on_busy", ["x"] * 1000, InvalidInput),
        ("deadline", "soon", InvalidInput),
        pytest.param("deadline", 10**5000, InvalidInput, id="a long deadline"),
        ("metadata", {"a": "\ud83d"}, InvalidInput),
    ],
)
def test_arguments_of_the_wrong_kind(field: str, value: Any, error: type[Exception]) -> None:
    request: dict[str, Any] = {"agent": "a", "message": "hi", field: value}
    with pytest.raises(error) as caught:
        new_turn(TurnRequest(**request), {}, load_settings())
    assert len(str(caught.value).encode()) < 1_000


@pytest.mark.parametrize(
    ("call_id", "reason", "by"),
    [
        (None, None, None),
        ("\ud83d", None, None),
        ("c", 7, None),
        ("c", "x" * 10**6, None),
        ("c", None, "\ud83d"),
    ],
)
def test_decisions_that_cannot_be_written(call_id: Any, reason: Any, by: Any) -> None:
    with pytest.raises(InvalidInput):
        check_decision(call_id, Decision(verdict=Verdict.REJECTED, reason=reason, by=by))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Usage, {"input_tokens": "7"}),
        (Usage, {"cost": []}),
        (TurnError, {"code": None, "message": "m"}),
        (ToolCall, {"id": "c", "name": "n", "arguments": []}),
        (Limits, {"steps": "many"}),
    ],
)
def test_fields_of_the_wrong_type(kind: Any, data: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        record_of(kind, data)


def test_fields_of_the_right_type() -> None:
    assert record_of(Usage, {"cost": 1, "new": object()}) == Usage(cost=1)
    assert record_of(Limits, {"steps": None, "cost": 0.5}) == Limits(cost=0.5)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "provider_data": []},
        {"role": "assistant", "content": "a", "model": 7},
        {"role": "user", "content": "a", "turn_id": ["t"]},
        {"role": "tool", "content": "a", "call_id": "c", "name": "n", "turn_id": {}},
    ],
)
def test_messages_with_fields_of_the_wrong_type(message: dict[str, Any]) -> None:
    with pytest.raises(UnreadableRecord):
        from_dict(message)


def test_a_step_that_was_rejected_with_something_else_than_text() -> None:
    with pytest.raises(UnreadableRecord):
        step_from_json(
            b'{"kind":"model","message":{"role":"assistant","content":""},'
            b'"usage":{},"rejected":[1]}'
        )


def test_a_conversation_whose_totals_are_something_else() -> None:
    with pytest.raises(UnreadableRecord):
        spent_from([b"[[", b"1", b"1"])
    with pytest.raises(UnreadableRecord):
        summary_from([b"\xff", b"1"], 3)
    with pytest.raises(UnreadableRecord):
        calibration_from(b"much")


@pytest.mark.parametrize("metadata", [b"[]", b"7", b"null"])
def test_a_turn_whose_metadata_are_no_object(metadata: bytes) -> None:
    fields = {
        "status": b"queued",
        "conversation": b"c",
        "agent": b"a",
        "input": b"hi",
        "user": b"",
        "tenant": b"",
        "stream": b"0",
        "on_abort": b"drop",
        "created": b"1",
    }
    assert turn_from_hash("t", {**fields, "metadata": b"{}"}).agent == "a"
    with pytest.raises(UnreadableRecord):
        turn_from_hash("t", {**fields, "metadata": metadata})


def test_the_gateway_quotes_little_of_what_it_refuses() -> None:
    body = problem_of(InvalidRequest("x" * 10**6, param="y" * 10**6)).body()["error"]
    assert LONGEST_MESSAGE <= len(body["message"]) < LONGEST_MESSAGE + 100
    assert len(body["param"]) < 300
