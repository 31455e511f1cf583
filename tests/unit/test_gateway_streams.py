"""From a turn's events to OpenAI's: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage
from agentapi.turns import Event, EventType, Turn, TurnError, TurnStatus
from orchestrator.gateway.openai.chat_stream import ChatStream
from orchestrator.gateway.openai.parts import Part
from orchestrator.gateway.openai.response_stream import ResponseStream

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
