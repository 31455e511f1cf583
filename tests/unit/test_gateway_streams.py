"""From a turn's events to OpenAI's: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentapi import FinishReason
from agentapi.conversation.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage
from agentapi.decoding.records import record_of
from agentapi.errors import TurnFailed
from agentapi.turns import Event, EventType, Turn, TurnError, TurnStatus
from orchestrator.gateway.http.errors import problem_of
from orchestrator.gateway.openai.chat_stream import ChatStream
from orchestrator.gateway.openai.objects import chat_object, response_object
from orchestrator.gateway.openai.parts import Part
from orchestrator.gateway.openai.response_stream import ResponseStream
from orchestrator.results import raise_if_failed

TURN_ID = "007-" + "a" * 32
CALL = ToolCall(id="call_1", name="look", arguments={"what": "it"})
QUEUED = Turn(
    turn_id=TURN_ID,
    conversation_id="gw:t:c",
    agent="a",
    input="hi",
    status=TurnStatus.QUEUED,
    stream=True,
)
COMPLETED = replace(
    QUEUED,
    status=TurnStatus.COMPLETED,
    text="it is there",
    messages=(
        UserMessage(content="hi", turn_id=TURN_ID),
        AssistantMessage(content="let me look", tool_calls=(CALL,), turn_id=TURN_ID),
        ToolMessage(call_id="call_1", name="look", content="there", turn_id=TURN_ID),
        AssistantMessage(content="it is there", turn_id=TURN_ID),
    ),
)
PLAIN = replace(
    COMPLETED, messages=(COMPLETED.messages[0], AssistantMessage(content="it is there"))
)
STARTED = (EventType.STARTED, {"attempt": 1, "worker": "w"})
MODEL_STEP = (EventType.STEP, {"index": 0, "kind": "model", "tools": ["look"], "calls": ["call_1"]})
REFUSED = (
    EventType.STEP,
    {"index": 0, "kind": "model", "tools": [], "calls": [], "rejected": True},
)
TOOL_STEP = (EventType.STEP, {"index": 1, "kind": "tool", "tools": ["look"], "calls": ["call_1"]})
RESET: tuple[EventType, dict[str, Any]] = (EventType.RESET, {})


def whole(turn: Turn) -> Part:
    """The only part of a turn that has not asked its client."""
    return Part(turn=turn, number=0, begins=None, ends=None, made=turn.messages)


def delta(text: str) -> tuple[EventType, dict[str, Any]]:
    return EventType.DELTA, {"text": text}


def respond(
    events: Sequence[tuple[EventType, dict[str, Any]]], ended: Turn, begun: Turn = QUEUED
) -> list[dict[str, Any]]:
    stream = ResponseStream(begun, "c")
    out = list(stream.opening())
    for number, (kind, data) in enumerate(events):
        out += stream.feed(Event(number=number, type=kind, data=data))
    out += stream.ending(whole(ended))
    assert [event["sequence_number"] for event in out] == list(range(len(out)))
    check_items(out)
    return out


def check_items(events: Sequence[dict[str, Any]]) -> None:
    """Every item is added once, under an index of its own, and done once."""
    added = {
        e["output_index"]: e["item"]["id"]
        for e in events
        if e["type"] == "response.output_item.added"
    }
    done = [
        (e["output_index"], e["item"]["id"])
        for e in events
        if e["type"] == "response.output_item.done"
    ]
    assert sorted(added.items()) == sorted(done)
    assert len(set(added.values())) == len(added)
    for event in events:
        if "item_id" in event:
            assert added[event["output_index"]] == event["item_id"]


def texts(events: Sequence[dict[str, Any]]) -> list[str]:
    found: dict[str, str] = {}
    for event in events:
        if event["type"] == "response.output_text.delta":
            found[event["item_id"]] = found.get(event["item_id"], "") + event["delta"]
    return list(found.values())


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_text_and_a_tool() -> None:
    seen = respond(
        [STARTED, delta("let me "), delta("look"), MODEL_STEP, TOOL_STEP, delta("it is there")],
        COMPLETED,
    )
    assert texts(seen) == ["let me look", "it is there"]
    final = seen[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["message", "mcp_call", "message"]
    shown = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert sorted(item["id"] for item in shown) == sorted(item["id"] for item in final["output"])
    assert all(item in final["output"] for item in shown)


def test_a_refused_reply_is_no_item() -> None:
    reply = replace(COMPLETED, messages=(COMPLETED.messages[0], COMPLETED.messages[-1]))
    seen = respond([STARTED, REFUSED, delta("it is there")], reply)
    [done] = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert [done] == seen[-1]["response"]["output"]


def test_text_that_is_given_up_ends_as_incomplete() -> None:
    seen = respond([STARTED, delta("it was"), STARTED, RESET, delta("it is there")], PLAIN)
    assert texts(seen) == ["it was", "it is there"]
    done = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert [item["status"] for item in done] == ["incomplete", "completed"]
    assert [item["content"][0]["text"] for item in seen[-1]["response"]["output"]] == [
        "it is there"
    ]
    assert kinds(seen).count("in_progress") == 1


def test_text_that_did_not_come_in_pieces_comes_at_the_end() -> None:
    assert texts(respond([STARTED], PLAIN)) == ["it is there"]
    assert texts(respond([STARTED, delta("it is")], PLAIN)) == ["it is there"]
    # Text that contradicts the stored reply is discarded like any other.
    assert texts(respond([STARTED, delta("other")], PLAIN)) == ["other", "it is there"]


def test_a_turn_that_was_not_to_be_streamed() -> None:
    quiet = replace(COMPLETED, stream=False)
    seen = respond([STARTED, MODEL_STEP, TOOL_STEP], quiet, begun=replace(QUEUED, stream=False))
    assert texts(seen) == ["let me look", "it is there"]
    done = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert done == seen[-1]["response"]["output"]


@pytest.mark.parametrize("status", [TurnStatus.FAILED, TurnStatus.CANCELLED])
def test_an_end_without_a_reply(status: TurnStatus) -> None:
    error = TurnError(code="deadline", message="too long")
    ended = replace(QUEUED, status=status, error=error if status is TurnStatus.FAILED else None)
    seen = respond([STARTED, delta("let me look"), MODEL_STEP, delta("it")], ended)
    assert kinds(seen)[-1] == ("failed" if status is TurnStatus.FAILED else "incomplete")
    assert seen[-1]["response"]["status"] == status.value
    done = [e["item"]["status"] for e in seen if e["type"] == "response.output_item.done"]
    assert done == ["completed", "incomplete", "incomplete"]


def test_events_of_a_release_without_call_ids() -> None:
    old = (EventType.STEP, {"index": 0, "kind": "model", "tools": ["look"]})
    seen = respond([STARTED, old, delta("it is there")], COMPLETED)
    assert texts(seen) == ["it is there"]
    assert len(seen[-1]["response"]["output"]) == 3


def chat(events: Sequence[tuple[EventType, dict[str, Any]]], ended: Turn) -> tuple[str, bool]:
    stream = ChatStream(QUEUED, include_usage=False)
    chunks = [stream.opening()]
    for number, (kind, data) in enumerate(events):
        chunks += stream.feed(Event(number=number, type=kind, data=data))
    chunks += stream.ending(whole(ended))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if "choices" in c)
    return text, stream.broken


@pytest.mark.parametrize(
    ("events", "text", "broken"),
    [
        ([delta("it is "), delta("there")], "it is there", False),
        ([], "it is there", False),
        ([delta("it is"), RESET, delta("it"), delta(" is the"), delta("re")], "it is there", False),
        ([delta("it is"), RESET, delta("it")], "it is there", False),
        ([RESET, delta("it is there")], "it is there", False),
        ([delta("it was"), RESET, delta("it is there")], "it was", True),
        ([delta("it was"), RESET], "it was", True),
        ([REFUSED, delta("it is there")], "it is there", False),
        ([delta("it is"), RESET, REFUSED, delta("it is there")], "it is there", False),
        ([delta("look"), RESET, MODEL_STEP, delta("it is there")], "lookit is there", True),
    ],
)
def test_a_chat_never_repeats_and_never_contradicts(
    events: Sequence[tuple[EventType, dict[str, Any]]], text: str, broken: bool
) -> None:
    assert chat(events, PLAIN) == (text, broken)


CUT = replace(
    PLAIN,
    messages=(
        PLAIN.messages[0],
        AssistantMessage(content="it is th", finish_reason=FinishReason.LENGTH),
    ),
    text="it is th",
)
NO = replace(
    PLAIN,
    messages=(
        PLAIN.messages[0],
        AssistantMessage(content="I will not.", finish_reason=FinishReason.REFUSAL),
    ),
    text="I will not.",
)
PART = (
    EventType.STEP,
    {"index": 0, "kind": "model", "tools": [], "calls": [], "finish_reason": "length"},
)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("reason", "told"),
    [(FinishReason.LENGTH, "max_output_tokens"), (FinishReason.CONTENT_FILTER, "content_filter")],
)
def test_a_reply_that_is_not_complete(stream: bool, reason: FinishReason, told: str) -> None:
    reply = AssistantMessage(content="it is th", finish_reason=reason, turn_id=TURN_ID)
    ended = replace(CUT, stream=stream, messages=(CUT.messages[0], reply))
    begun = replace(QUEUED, stream=stream)
    seen = respond([STARTED, *([delta("it is ")] if stream else [])], ended, begun=begun)
    final = seen[-1]["response"]
    assert (kinds(seen)[-1], final["status"]) == ("incomplete", "incomplete")
    assert (final["incomplete_details"], final["completed_at"]) == ({"reason": told}, None)
    [done] = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert done["status"] == "incomplete"
    assert [done] == final["output"]
    assert chat_object(whole(ended))["choices"][0]["finish_reason"] == reason.value
    assert chat_finish([delta("it is ")], ended) == reason.value


@pytest.mark.parametrize(
    "events",
    [
        [delta("it is "), PART, delta("there")],
        [delta("it is "), PART],
        # A worker is lost in the second part: the first was recorded and does not come again.
        [delta("it is "), PART, delta("th"), RESET, delta("the"), delta("re")],
        [delta("it is "), PART, delta("th"), RESET, RESET, delta("there")],
        [delta("it is "), PART, delta("th"), RESET],
        # And one in the first part, before anything was recorded.
        [delta("it"), RESET, delta("it is "), PART, delta("the"), PART, delta("re")],
    ],
)
def test_a_reply_that_was_continued_is_one_text(
    events: list[tuple[EventType, dict[str, Any]]],
) -> None:
    seen = respond([STARTED, *events], PLAIN)
    assert texts(seen)[-1] == "it is there"
    done = [e["item"] for e in seen if e["type"] == "response.output_item.done"]
    assert [item["status"] for item in done][-1] == "completed"
    assert [item["status"] for item in done].count("completed") == 1
    assert done[-1]["content"][0]["text"] == "it is there"
    assert chat(events, PLAIN) == ("it is there", False)


def test_a_continued_text_that_differs_breaks_a_chat() -> None:
    _, broken = chat([delta("it is "), PART, delta("th"), RESET, delta("gone")], PLAIN)
    assert broken


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "events",
    [
        [],
        [(EventType.DELTA, {"text": "I will ", "refusal": True})],
        # A provider that began to answer, and then refused.
        [delta("I "), (EventType.DELTA, {"text": "will not.", "refusal": True})],
    ],
)
def test_a_refusal_is_a_part_of_its_own(
    stream: bool, events: list[tuple[EventType, dict[str, Any]]]
) -> None:
    ended, begun = replace(NO, stream=stream), replace(QUEUED, stream=stream)
    seen = respond([STARTED, *(events if stream else [])], ended, begun=begun)
    final = seen[-1]["response"]
    assert (kinds(seen)[-1], final["status"]) == ("completed", "completed")
    [item] = final["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "I will not."}]
    shown = [e for e in seen if e["type"] == "response.refusal.delta"]
    assert "".join(e["delta"] for e in shown) == "I will not."
    assert [e["refusal"] for e in seen if e["type"] == "response.refusal.done"] == ["I will not."]
    message = chat_object(whole(ended))["choices"][0]
    assert (message["finish_reason"], message["message"]["content"]) == ("stop", None)
    assert message["message"]["refusal"] == "I will not."


def chat_finish(events: Sequence[tuple[EventType, dict[str, Any]]], ended: Turn) -> str | None:
    stream = ChatStream(QUEUED, include_usage=False)
    chunks = [stream.opening()]
    for number, (kind, data) in enumerate(events):
        chunks += stream.feed(Event(number=number, type=kind, data=data))
    chunks += stream.ending(whole(ended))
    reason: str | None = chunks[-1]["choices"][0]["finish_reason"]
    return reason


@pytest.mark.parametrize(
    ("error", "code", "status", "kind"),
    [
        (TurnError(code="provider_unavailable", message="x"), "server_error", 503, "server_error"),
        (
            TurnError(code="provider_unavailable", message="x", status=503),
            "server_error",
            503,
            "server_error",
        ),
        (
            TurnError(code="provider_unavailable", message="x", status=429),
            "rate_limit_exceeded",
            503,
            "server_error",
        ),
        (
            TurnError(code="context_too_long", message="x", status=400),
            "invalid_prompt",
            400,
            "invalid_request_error",
        ),
        (TurnError(code="invalid_message", message="x"), "invalid_prompt", 400, None),
        (TurnError(code="provider_rejected", message="x", status=400), "server_error", 502, None),
        (TurnError(code="incomplete_reply", message="x"), "server_error", 502, None),
        (TurnError(code="invalid_output", message="x"), "server_error", 502, None),
        (TurnError(code="deadline", message="x"), "server_error", 504, None),
        (TurnError(code="vetoed", message="x"), "server_error", 500, None),
    ],
)
def test_errors_have_the_codes_that_are_true(
    error: TurnError, code: str, status: int, kind: str | None
) -> None:
    failed = replace(QUEUED, status=TurnStatus.FAILED, error=error)
    assert response_object(whole(failed), "c")["error"] == {
        "code": code,
        "message": f"{error.code}: x",
    }
    with pytest.raises(TurnFailed) as caught:
        raise_if_failed(failed)
    problem = problem_of(caught.value)
    assert (problem.status, problem.code) == (status, error.code)
    assert problem.headers == {"x-should-retry": "false"}
    [chunk] = ChatStream(QUEUED, include_usage=False).ending(whole(failed))
    assert (chunk["error"]["type"], chunk["error"]["code"]) == (problem.kind, error.code)
    assert kind in (None, problem.kind)


def test_the_status_of_a_provider_is_kept_with_the_error() -> None:
    limited = TurnError(code="provider_unavailable", message="x", status=429)
    assert record_of(TurnError, limited.to_dict()) == limited
    unreached = TurnError(code="provider_unavailable", message="x")
    assert unreached.to_dict() == {"code": "provider_unavailable", "message": "x"}
