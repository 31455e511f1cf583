"""Calls that the client makes, and messages that steer, on both stores."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentapi.errors import CallNotPending
from agentapi.stores import Suspended
from agentapi.turns import (
    Answers,
    CallBook,
    ClientCall,
    ClientOutput,
    ClientTool,
    ClientTools,
    Continuation,
    Decision,
    HeldCalls,
    OnBusy,
    Question,
    TurnStatus,
    Verdict,
)
from agentapi.turns.calls import CallKind
from agentapi.turns.client_tools import NOT_IN_TIME
from tests.conformance.stores import Bench, C, completed, model_step

TOOLS = ClientTools(tools=(ClientTool(name="t", parameters={"type": "object"}),))
OUT = ClientOutput(text="out")


def call(call_id: str, **more: Any) -> ClientCall:
    return ClientCall(call_id=call_id, tool="t", arguments={"a": 1}, **more)


def waiting(bench: Bench, *calls: ClientCall, questions: Any = ()) -> str:
    turn_id = bench.enqueue(client_tools=TOOLS)
    lease = bench.claim(turn_id).lease
    held = HeldCalls(client=calls, questions=questions, responses=1)
    assert bench.store.calls.suspend(lease, held) is Suspended.PARKED
    return turn_id


def test_the_last_output_wakes_the_turn(bench: Bench) -> None:
    turn_id = waiting(bench, call("c1"), call("c2", number=1))
    answer = bench.store.calls.answer
    assert answer(turn_id, Answers(outputs={"c1": OUT})) is None
    assert bench.store.turn(turn_id).status is TurnStatus.PARKED
    [left] = bench.store.calls.pending(turn_id)
    assert (left.call_id, left.kind, left.arguments) == ("c2", CallKind.CLIENT, {"a": 1})
    wakeup = answer(turn_id, Answers(outputs={"c2": OUT}))
    assert wakeup is not None
    # As when the answer was lost.
    assert answer(turn_id, Answers(outputs={"c2": OUT})) == wakeup
    claim = bench.claim(turn_id)
    assert claim.calls.outputs == {"c1": OUT, "c2": OUT}
    [segment] = claim.turn.segments
    assert (segment.responses, segment.client) == (1, ("c1", "c2"))
    events = [e.type for e in bench.store.events({turn_id: -1}, 0)[turn_id]]
    assert events == ["started", "parked", "answered", "answered", "started"]


def test_answers_are_given_all_or_none(bench: Bench) -> None:
    question = Question(call_id="q", tool="t", arguments={})
    turn_id = waiting(bench, call("c1"), questions=[question])
    changed = Continuation(part=1, metadata={"a": "b"}, stream=True)
    for wrong in (
        Answers(outputs={"c1": OUT, "none": OUT}, continuation=changed),
        Answers(outputs={"c1": OUT, "q": OUT}, continuation=changed),
        Answers(decisions={"c1": Decision(verdict=Verdict.APPROVED)}, continuation=changed),
    ):
        with pytest.raises(CallNotPending):
            bench.store.calls.answer(turn_id, wrong)
    assert len(bench.store.calls.pending(turn_id)) == 2
    assert bench.store.turn(turn_id).parts == {}
    yes = Decision(verdict=Verdict.APPROVED)
    both = Answers(outputs={"c1": OUT}, decisions={"q": yes}, continuation=changed)
    assert bench.store.calls.answer(turn_id, both) is not None
    turn = bench.store.turn(turn_id)
    assert (turn.parts, turn.stream, turn.client_tools) == ({1: {"a": "b"}}, True, TOOLS)
    with pytest.raises(CallNotPending):
        bench.store.calls.answer(turn_id, Answers(outputs={"c1": ClientOutput(text="other")}))


def test_a_call_whose_time_is_up_has_an_error(bench: Bench) -> None:
    turn_id = waiting(bench, call("c1", timeout=0.01))
    time.sleep(0.02)
    assert C in bench.store.overdue()
    with pytest.raises(CallNotPending):
        bench.store.calls.answer(turn_id, Answers(outputs={"c1": OUT}))
    assert bench.claim(turn_id).calls.outputs == {"c1": NOT_IN_TIME}


def test_outputs_that_come_while_the_turn_parks(bench: Bench) -> None:
    turn_id = waiting(bench, call("c1"), call("c2"))
    bench.store.calls.answer(turn_id, Answers(outputs={"c1": OUT, "c2": OUT}))
    lease = bench.claim(turn_id).lease
    held = HeldCalls(client=[call("c2")], responses=1)
    book = bench.store.calls.suspend(lease, held)
    assert isinstance(book, CallBook)
    assert book.outputs["c2"] == OUT


def test_the_steps_of_a_turn_that_asked_outlive_its_cancellation(bench: Bench) -> None:
    turn_id = bench.enqueue(client_tools=TOOLS)
    lease = bench.claim(turn_id).lease
    bench.store.record(lease, 0, model_step())
    bench.store.calls.suspend(lease, HeldCalls(client=[call("c1")], responses=1))
    bench.store.cancel(turn_id)
    assert bench.store.steps(turn_id) == [model_step()]
    with pytest.raises(CallNotPending):
        bench.store.calls.answer(turn_id, Answers(outputs={"c1": OUT}))


def test_who_does_not_steer(bench: Bench) -> None:
    first = bench.enqueue()
    # Nobody has begun it.
    waits = bench.enqueue(on_busy=OnBusy.STEER)
    lease = bench.claim(first).lease
    others: list[dict[str, Any]] = [
        {"user_id": "another"},
        {"timeout": 60},
        {"context": {"plan": "free"}},
        {"client_tools": TOOLS},
    ]
    others_ids = [bench.enqueue(on_busy=OnBusy.STEER, **other) for other in others]
    assert bench.store.steer(lease, 0) == []
    following = bench.store.commit(lease, completed(first))
    assert following is not None
    assert following.turn_id == waits
    assert all(bench.store.turn(t).status is TurnStatus.QUEUED for t in others_ids)


def test_a_message_that_came_too_late_is_a_turn(bench: Bench) -> None:
    first = bench.enqueue()
    lease = bench.claim(first).lease
    late = bench.enqueue(message="late", on_busy=OnBusy.STEER)
    following = bench.store.commit(lease, completed(first))
    assert following is not None
    assert following.turn_id == late
    claim = bench.claim(late)
    assert (claim.turn.input, list(claim.steps)) == ("late", [])
