"""What is stored is read by releases older and newer than the one that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
    dumps,
    loads,
)
from agentapi.errors import UnreadableRecord
from agentapi.stores.redis.calls_codec import (
    call_book,
    children_of,
    decision_from_json,
    decision_to_json,
    held_to_json,
    pending_calls,
    reply_to_json,
)
from agentapi.stores.redis.codec import event_from_entry, turn_from_hash
from agentapi.turns import (
    ChildReply,
    ChildTurn,
    Decision,
    EventType,
    HeldCalls,
    ModelStep,
    Question,
    ToolStep,
    TurnError,
    TurnKind,
    TurnStatus,
    Verdict,
    step_from_json,
    step_to_json,
)
from agentapi.turns.budget import Limits

ATTACHED = Attachment(kind=AttachmentKind.IMAGE, url="https://example.org/a.png")
MESSAGES = (
    UserMessage(content="hi", attachments=(ATTACHED,), turn_id="t"),
    AssistantMessage(content="", tool_calls=(ToolCall(id="c", name="look", arguments={"a": {}}),)),
    ToolMessage(call_id="c", name="look", content="seen"),
)
STEPS = (
    ModelStep(message=MESSAGES[1], usage=Usage(input_tokens=3), held=("c",)),
    ModelStep(message=MESSAGES[1], prompt="You help.", offered=("look", "files/*")),
    ToolStep(message=MESSAGES[2], usage=Usage(output_tokens=2), steps=1),
)
CHILD = ChildTurn(
    call_id="k",
    turn_id="007-" + "0" * 32,
    conversation_id="child",
    agent="b",
    input="hi",
    budget=Limits(steps=3),
    inherits=False,
)
REPLY = ChildReply(
    turn_id=CHILD.turn_id,
    status=TurnStatus.FAILED,
    error=TurnError(code="deadline", message="late"),
    usage=Usage(input_tokens=1),
)
TURN = {
    "v": b"1",
    "conversation": b"c",
    "agent": b"a",
    "input": b"hi",
    "user": b"",
    "tenant": b"",
    "metadata": b"{}",
    "stream": b"0",
    "on_abort": b"drop",
    "status": b"failed",
    "created": b"1000",
    "budget": b'{"steps":3}',
    "attachments": b'[{"kind":"image","url":"https://example.org/a.png"}]',
    "outcome": b'{"messages":[],"usage":{"input_tokens":3},"error":{"code":"x","message":"y"}}',
}


def with_more(value: Any) -> Any:
    """The same JSON as a newer release might write it: every object has one more field."""
    match value:
        case dict():
            return {**{k: with_more(v) for k, v in value.items()}, "of_a_newer_release": [1]}
        case list():
            return [with_more(each) for each in value]
        case _:
            return value


def newer(data: bytes) -> bytes:
    return orjson.dumps(with_more(orjson.loads(data)))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.role)
def test_messages(message: Any) -> None:
    read = loads(newer(dumps(message)))
    if isinstance(read, AssistantMessage):
        # What a model passed to a tool is its own, whatever the names.
        assert read.tool_calls[0].name == "look"
    else:
        assert read == message


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kind)
def test_steps(step: Any) -> None:
    assert step_from_json(newer(step_to_json(step))).usage == step.usage


def test_turns() -> None:
    fields = {
        name: newer(value) if value.startswith((b"{", b"[")) else value
        for name, value in TURN.items()
    }
    read = turn_from_hash("t", {**fields, "of_a_newer_release": b"1", "metadata": b"{}"})
    assert read == turn_from_hash("t", TURN)
    assert (read.budget, read.usage.input_tokens) == (Limits(steps=3), 3)
    assert read.error == TurnError(code="x", message="y")
    assert list(read.attachments) == [ATTACHED]


def test_a_turn_without_a_stored_kind_is_of_its_agents_kind() -> None:
    assert turn_from_hash("t", TURN).kind is TurnKind.AGENT
    for agent, kind in ((b"agentapi.compact", TurnKind.COMPACTION), (b"x", TurnKind.AGENT)):
        assert turn_from_hash("t", {**TURN, "agent": agent}).kind is kind
    # A stored kind counts, whatever the agent is called.
    assert turn_from_hash("t", {**TURN, "kind": b"chain"}).kind is TurnKind.CHAIN
    with pytest.raises(UnreadableRecord, match="upgrade") as caught:
        turn_from_hash("t", {**TURN, "kind": b"of a newer release"})
    assert caught.value.newer


def test_calls() -> None:
    decision = Decision(verdict=Verdict.APPROVED, by="ann")
    assert decision_from_json(newer(decision_to_json(decision))) == decision
    # Releases that know no edited arguments compare these bytes with their own.
    assert decision_to_json(decision) == b'{"verdict":"approved","reason":null,"by":"ann"}'
    held = orjson.loads(
        held_to_json(
            HeldCalls(questions=[Question(call_id="q", tool="t", arguments={})], children=[CHILD])
        )
    )
    fields = {
        "q:q": newer(held["questions"][0]["question"].encode()),
        "k:k": newer(held["children"][0]["list"].encode()),
        f"r:{CHILD.turn_id}": newer(reply_to_json(REPLY)),
    }
    book = call_book(fields, 1)
    assert book.children == {"k": (CHILD,)}
    assert book.replies == {CHILD.turn_id: REPLY}
    assert children_of(fields) == [(CHILD, False)]
    [pending] = pending_calls(turn_from_hash("t", TURN), fields)
    assert (pending.call_id, pending.tool) == ("q", "t")


@pytest.mark.parametrize(
    "read",
    [
        lambda: loads(b'{"v":2,"role":"user","content":"x"}'),
        lambda: step_from_json(b'{"v":2,"kind":"thought"}'),
        lambda: step_from_json(b'{"kind":"model","message":{"v":2,"role":"assistant"}}'),
        lambda: turn_from_hash("t", {**TURN, "v": b"2"}),
    ],
)
def test_a_newer_record_is_said_to_be_newer(read: Callable[[], object]) -> None:
    with pytest.raises(UnreadableRecord, match=r"version 2.*up to 1.*upgrade") as caught:
        read()
    assert caught.value.newer
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize(
    "read",
    [
        lambda: loads(b"\xff"),
        lambda: loads(b"[1]"),
        lambda: loads(b'{"v":0,"role":"user","content":"secret"}'),
        lambda: loads(b'{"v":1,"role":"user"}'),
        lambda: loads(b'{"v":1,"role":"secret","content":"secret"}'),
        lambda: step_from_json(b"{}"),
        lambda: step_from_json(b"null"),
        lambda: step_from_json(b'{"kind":"tool","message":' + dumps(MESSAGES[0]) + b"}"),
        lambda: turn_from_hash("t", {"dispatches": b"3"}),
        lambda: turn_from_hash("t", {**TURN, "status": b"secret"}),
        lambda: turn_from_hash("t", {**TURN, "input": b"secret\xff"}),
        lambda: turn_from_hash("t", {**TURN, "outcome": b"secret"}),
        lambda: turn_from_hash("t", {**TURN, "budget": b'{"steps":-1}'}),
        lambda: call_book({"a:c": b"secret"}, 1),
        lambda: call_book({"a:c": b'{"verdict":"secret"}'}, 1),
        lambda: call_book({"r:c": b"[]"}, 1),
        lambda: children_of({"k:c": b'{"secret":1}'}),
    ],
)
def test_a_broken_record_is_one_clear_error(read: Callable[[], object]) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        read()
    assert not caught.value.newer
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {b"type": b"of_a_newer_release", b"data": b"{}"},
        {b"type": b"delta", b"data": b"{"},
        {b"type": b"delta", b"data": b"[]"},
        {b"type": b"delta", b"data": b"{}"},
        {b"type": b"step", b"data": b'{"index":0}'},
        {b"type": b"\xff", b"data": b"{}"},
        {b"data": b"{}"},
        {b"type": b"started"},
        {},
    ],
)
def test_an_event_that_cannot_be_read_keeps_its_number(fields: dict[bytes, bytes]) -> None:
    event = event_from_entry(b"8-0", fields)
    assert (event.number, event.type) == (7, EventType.UNKNOWN)


def test_an_end_stays_an_end() -> None:
    event = event_from_entry(b"8-0", {b"type": b"failed", b"data": b"{"})
    assert (event.number, event.type, event.data) == (7, EventType.FAILED, {})
