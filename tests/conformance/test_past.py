"""A turn's past: what its log says, for people."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import AssistantMessage, Usage
from agentapi.errors import LeaseLost, TurnNotFound
from agentapi.ids import create_turn_id
from agentapi.stores import Ending
from agentapi.turns import (
    ChildReply,
    ChildTurn,
    Decision,
    HeldCalls,
    ModelStep,
    OnBusy,
    Question,
    TurnError,
    TurnStatus,
    Verdict,
)
from agentapi.turns.marks import LONGEST_LOG, MarkKind
from tests.conformance.stores import Bench, C, completed, model_step, tool_step


def kinds(bench: Bench, turn_id: str) -> list[MarkKind]:
    return [mark.kind for mark in bench.store.past(turn_id).marks]


def data(bench: Bench, turn_id: str, kind: MarkKind) -> list[Any]:
    return [list(mark.data) for mark in bench.store.past(turn_id).marks if mark.kind is kind]


def reply(seconds: float = 1.5) -> ModelStep:
    usage = Usage(input_tokens=12, output_tokens=5, cached_tokens=3, cost=0.25)
    message = AssistantMessage(content="yo", model="offline:echo")
    return ModelStep(message=message, usage=usage, seconds=seconds)


def test_a_turn_keeps_who_ran_it_and_what_each_step_took(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id, owner="w1")
    bench.store.record(claim.lease, 0, replace(model_step(), seconds=0.25))
    bench.store.record(claim.lease, 0, replace(model_step(), seconds=0.25))
    bench.store.record(claim.lease, 1, replace(tool_step(), seconds=2.0))
    bench.store.commit(claim.lease, replace(completed(turn_id), last_step=reply()))
    bench.store.commit(claim.lease, replace(completed(turn_id), last_step=reply()))

    past = bench.store.past(turn_id)
    assert [mark.kind for mark in past.marks] == ["c", "m", "t", "m"]
    claimed, first, tool, last = past.marks
    assert list(claimed.data[:3]) == [1, "w1", "first"]
    assert first.data[0] == 250
    assert list(tool.data) == [2000, "look", "c1", 0]
    assert list(last.data) == [1500, "offline:echo", 12, 5, 3, 0.25, "", 0, 1]
    times = [past.turn.created_at, claimed.at, last.at, past.turn.ended_at or 0, past.now]
    # A mark keeps whole milliseconds; the store in memory knows its turns' times more precisely.
    assert all(earlier <= later + 0.0011 for earlier, later in itertools.pairwise(times))
    assert list(past.steps) == []


def test_an_incomplete_and_a_rejected_response_say_so(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id)
    cut = replace(reply().message, finish_reason=FinishReason.LENGTH)
    bench.store.record(claim.lease, 0, replace(reply(), message=cut))
    bench.store.record(claim.lease, 1, replace(reply(), rejected="not JSON"))
    assert [mark[6] for mark in data(bench, turn_id, MarkKind.MODEL)] == ["length", "rejected"]


def test_attempts_end_in_different_ways(bench: Bench) -> None:
    turn_id = bench.enqueue()
    stopped = bench.claim(turn_id, owner="w1")
    bench.store.release(stopped.lease)
    bench.store.release(stopped.lease)
    parked = bench.claim(turn_id, owner="w2")
    bench.store.park(parked.lease, 0, failures=1, steps=0, reason="provider", names=("openai",))
    lost = bench.claim(turn_id, owner="w3")
    bench.expire_lease(C)
    bench.claim(turn_id, owner="w4", token="p:1")
    bench.store.perish(C, turn_id, "p")
    bench.store.perish(C, turn_id, "p")
    bench.claim(turn_id, owner="w5")
    for _ in range(2):
        with pytest.raises(LeaseLost):
            bench.store.record(lost.lease, 0, model_step())
    with pytest.raises(LeaseLost):
        bench.store.commit(lost.lease, completed(turn_id))

    assert kinds(bench, turn_id) == [*"chcpclcxc", *"ff"]
    claims = data(bench, turn_id, MarkKind.CLAIMED)
    assert [claim[1] for claim in claims] == ["w1", "w2", "w3", "w4", "w5"]
    assert [claim[2] for claim in claims] == [
        *("first", "worker_stopped", "woken", "lease_expired", "lease_expired")
    ]
    refused = data(bench, turn_id, MarkKind.REFUSED)
    assert [mark[0] for mark in refused] == ["record", "commit"]
    assert {mark[1] for mark in refused} == {claims[2][4]}
    assert data(bench, turn_id, MarkKind.DIED) == [[1]]
    [wait] = data(bench, turn_id, MarkKind.PARKED)
    assert wait[0]["waits_for"] == "openai"


def held(**more: Any) -> HeldCalls:
    return HeldCalls(**more)


def test_a_decision_is_kept_with_who_made_it_beyond_the_end_of_the_turn(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id)
    questions = [
        Question(call_id=name, tool="refund", arguments={"amount": 5}, number=number)
        for number, name in enumerate(("c1", "c2", "c3"))
    ]
    bench.store.calls.suspend(claim.lease, held(questions=questions))
    edited = Decision(verdict=Verdict.EDITED, by="kim", arguments={"amount": 4})
    bench.store.calls.decide(turn_id, "c1", edited)
    bench.store.calls.decide(turn_id, "c1", edited)
    long = Decision(verdict=Verdict.REJECTED, by="kim", reason="because " * 500)
    bench.store.calls.decide(turn_id, "c2", long)
    assert [call.call_id for call in bench.store.past(turn_id).pending] == ["c3"]
    bench.store.calls.decide(turn_id, "c3", Decision(verdict=Verdict.APPROVED))
    bench.store.commit(bench.claim(turn_id).lease, completed(turn_id))

    decided = data(bench, turn_id, MarkKind.DECIDED)
    assert [mark[0] for mark in decided] == ["c1", "c2", "c3"]
    assert decided[0][1] == {
        "verdict": "edited",
        "by": "kim",
        "reason": None,
        "arguments": {"amount": 4},
    }
    assert decided[1][1] == {"verdict": "rejected", "by": "kim", "cut": True}
    assert decided[2][1]["by"] is None


def test_a_question_that_expires_was_decided_by_nobody(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id)
    question = Question(call_id="c1", tool="refund", arguments={}, timeout=0.0)
    bench.store.calls.suspend(claim.lease, held(questions=[question]))
    [mark] = data(bench, turn_id, MarkKind.DECIDED)
    assert (mark[0], mark[1]["verdict"], mark[1]["by"]) == ("c1", "rejected", "expiry")


def test_children_and_their_replies_are_noted_once(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id)
    child = ChildTurn(
        call_id="c1", turn_id="000-child", conversation_id="x", agent="b", input="do it"
    )
    bench.store.calls.suspend(claim.lease, held(children=[child]))
    answer = ChildReply(turn_id=child.turn_id, status=TurnStatus.COMPLETED, text="done")
    bench.store.calls.deliver(turn_id, answer)
    bench.store.calls.deliver(turn_id, answer)
    assert data(bench, turn_id, MarkKind.DELEGATED) == [["c1", ["000-child"]]]
    assert data(bench, turn_id, MarkKind.REPLIED) == [
        [{"turn": "000-child", "status": "completed"}]
    ]


def test_a_message_that_joins_and_a_retry_are_noted(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id)
    joined = bench.enqueue(message="hurry", on_busy=OnBusy.STEER)
    bench.store.steer(claim.lease, 0)
    error = TurnError(code="internal", message="no")
    bench.store.commit(claim.lease, Ending(status=TurnStatus.FAILED, error=error, steps=1))
    bench.store.retry(turn_id, "again")
    bench.store.retry(turn_id, "again")
    assert kinds(bench, turn_id) == [*"cur"]
    assert bench.store.past(joined).turn.turn_id == turn_id


def test_a_long_log_loses_its_beginning(make_bench: Any) -> None:
    bench = make_bench()
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id, owner="w" * 60)
    for index in range(300):
        name = f"é{index}" * 12
        step = tool_step(f"call_{index}")
        named = replace(step, message=replace(step.message, name=name))
        bench.store.record(claim.lease, index, named)
    marks = bench.store.past(turn_id).marks
    assert 20 < len(marks) < 300
    assert marks[-1].data[2] == "call_299"
    assert sum(len(str(mark.data).encode()) for mark in marks) < LONGEST_LOG


def test_the_past_of_a_turn_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(TurnNotFound):
        bench.store.past(create_turn_id(C))
