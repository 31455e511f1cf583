"""Turns that wait for decisions and for other turns, on both stores."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.messages import Usage
from agentapi.errors import CallNotPending, LeaseLost, TurnNotFound
from agentapi.ids import create_turn_id, partition_of_turn
from agentapi.stores import (
    CancelOutcome,
    Claim,
    Ending,
    Errand,
    ErrandKind,
    Lease,
    Refusal,
    Suspended,
    Wakeup,
)
from agentapi.turns import (
    CallBook,
    ChildReply,
    ChildTurn,
    Decision,
    HeldCalls,
    Question,
    TurnError,
    TurnStatus,
    Verdict,
)
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, completed

YES = Decision(verdict=Verdict.APPROVED, by="ann")
NO = Decision(verdict=Verdict.REJECTED, reason="too much")


def question(call_id: str = "c1", **more: Any) -> Question:
    number = int(call_id[1:])
    arguments = {"amount": 7}
    return Question(call_id=call_id, tool="refund", arguments=arguments, number=number, **more)


def child(call_id: str = "c1", number: int = 0) -> ChildTurn:
    conversation_id = f"child:{call_id}:{number}"
    return ChildTurn(
        call_id=call_id,
        turn_id=create_turn_id(conversation_id, "once"),
        conversation_id=conversation_id,
        agent="b",
        input="hi",
    )


def suspend(
    bench: Bench, lease: Lease, *, questions: Any = (), children: Any = ()
) -> Suspended | CallBook:
    return bench.store.calls.suspend(lease, HeldCalls(questions=questions, children=children))


def waiting(bench: Bench, *, questions: Any = (), children: Any = (), **more: Any) -> str:
    """A turn that waits."""
    turn_id = bench.enqueue(**more)
    lease = bench.claim(turn_id).lease
    assert suspend(bench, lease, questions=questions, children=children) is Suspended.PARKED
    return turn_id


def reply(turn: ChildTurn, **more: Any) -> ChildReply:
    more.setdefault("status", TurnStatus.COMPLETED)
    return ChildReply(turn_id=turn.turn_id, **more)


def errands(bench: Bench) -> list[Errand]:
    time.sleep(0.01)
    return [late for late in bench.store.overdue() if isinstance(late, Errand)]


def errand(kind: ErrandKind, turn_id: str, owner: str) -> Errand:
    return Errand(kind=kind, turn_id=turn_id, partition=partition_of_turn(owner))


def test_a_question_is_kept_and_its_turn_waits(bench: Bench) -> None:
    turn_id = waiting(bench, questions=[question(), question("c2")])
    turn = bench.store.turn(turn_id)
    assert turn.status is TurnStatus.PARKED
    assert turn.wakes_at is None
    assert bench.store.overdue() == []
    assert bench.has_due(C)
    assert isinstance(bench.try_claim(turn_id), Refusal)
    [first, second] = bench.store.calls.pending(turn_id)
    assert (first.call_id, first.tool, first.arguments) == ("c1", "refund", {"amount": 7})
    assert (first.agent, first.turn_id, first.expires_at) == ("a", turn_id, None)
    assert second.call_id == "c2"
    events = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert events[-1].data["calls"][0] == {"call": "c1", "tool": "refund"}


def test_the_same_suspension_again(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    for _ in range(2):
        assert suspend(bench, lease, questions=[question()]) is Suspended.PARKED
    assert bench.store.turn(turn_id).parks == 1
    with pytest.raises(LeaseLost):
        bench.complete(lease)


def test_each_decision_wakes_the_turn_and_is_given_once(bench: Bench) -> None:
    turn_id = waiting(bench, questions=[question(), question("c2")])
    wakeup = bench.store.calls.decide(turn_id, "c1", YES)
    assert wakeup == Wakeup(conversation_id=C, turn_id=turn_id, agent="a")
    assert bench.store.calls.decide(turn_id, "c1", YES) == wakeup
    claim = bench.claim(turn_id)
    assert claim.calls.decisions == {"c1": YES}
    assert claim.calls.begun_before == frozenset()
    assert [call.call_id for call in bench.store.calls.pending(turn_id)] == ["c2"]
    assert suspend(bench, claim.lease, questions=[question("c2")]) is Suspended.PARKED
    bench.store.calls.decide(turn_id, "c2", NO)
    claim = bench.claim(turn_id)
    assert claim.calls.decisions == {"c1": YES, "c2": NO}
    assert claim.calls.begun_before == {"c1"}
    assert bench.store.calls.pending(turn_id) == []


def test_the_same_claim_again_is_given_the_same(bench: Bench) -> None:
    turn_id = waiting(bench, questions=[question()])
    bench.store.calls.decide(turn_id, "c1", YES)
    for _ in range(2):
        assert bench.claim(turn_id, token="t").calls.begun_before == frozenset()
    bench.expire_lease(C)
    assert bench.claim(turn_id).calls.begun_before == {"c1"}


def test_a_decision_while_a_worker_has_the_turn_is_not_lost(bench: Bench) -> None:
    turn_id = waiting(bench, questions=[question(), question("c2")])
    bench.store.calls.decide(turn_id, "c1", YES)
    lease = bench.claim(turn_id).lease
    assert bench.store.calls.decide(turn_id, "c2", YES) is None
    for _ in range(2):
        # Also when the first answer was lost: else the turn would wait, and nobody could see it.
        book = suspend(bench, lease, questions=[question("c2")])
        assert isinstance(book, CallBook)
        assert book.decisions["c2"] == YES
        assert book.begun_before == frozenset()
    assert bench.complete(lease) is None


def test_a_decision_is_final(bench: Bench) -> None:
    turn_id = waiting(bench, questions=[question()])
    bench.store.calls.decide(turn_id, "c1", YES)
    with pytest.raises(CallNotPending, match="was already approved by ann"):
        bench.store.calls.decide(turn_id, "c1", NO)
    with pytest.raises(CallNotPending, match=f"turn {turn_id} has no pending call 'other'"):
        bench.store.calls.decide(turn_id, "other", YES)
    with pytest.raises(TurnNotFound):
        bench.store.calls.decide(create_turn_id(C), "c1", YES)
    with pytest.raises(TurnNotFound):
        bench.store.calls.pending(create_turn_id(C))
    bench.complete(bench.claim(turn_id).lease)
    with pytest.raises(CallNotPending, match="is completed"):
        bench.store.calls.decide(turn_id, "c1", YES)
    assert bench.store.calls.pending(turn_id) == []


def test_edited_arguments_are_kept_with_their_decision(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}}
    turn_id = waiting(bench, questions=[question(schema=schema)])
    assert bench.store.calls.pending(turn_id)[0].schema == schema
    edited = Decision(verdict=Verdict.EDITED, by="ann", arguments={"amount": 5, "all": [1, None]})
    wakeup = bench.store.calls.decide(turn_id, "c1", edited)
    assert wakeup is not None
    # A repeat, whatever the order in which it names the arguments.
    again = replace(edited, arguments={"all": [1, None], "amount": 5})
    assert bench.store.calls.decide(turn_id, "c1", again) == wakeup
    for other in (replace(edited, arguments={"amount": 6}), YES):
        with pytest.raises(CallNotPending, match="was already edited by ann"):
            bench.store.calls.decide(turn_id, "c1", other)
    decided = bench.store.events({turn_id: -1}, 0)[turn_id][-1]
    assert dict(decided.data) == {"call": "c1", "verdict": "edited"}
    assert bench.claim(turn_id).calls.decisions == {"c1": edited}


@pytest.mark.parametrize("default", [each for each in Verdict if each.is_default])
def test_a_question_expires_with_its_default(bench: Bench, default: Verdict) -> None:
    turn_id = waiting(bench, questions=[question(timeout=0.001, default=default)])
    assert bench.store.turn(turn_id).wakes_at is not None
    time.sleep(0.01)
    assert bench.store.overdue() == [C]
    assert bench.store.redispatch([C], {})
    with pytest.raises(CallNotPending, match="expiry"):
        bench.store.calls.decide(turn_id, "c1", Decision(verdict=default, by="late"))
    decision = bench.claim(turn_id).calls.decisions["c1"]
    assert (decision.verdict, decision.by) == (default, "expiry")


def test_the_last_reply_wakes_the_parent(bench: Bench) -> None:
    one, two = child(), child(number=1)
    turn_id = waiting(bench, children=[one, two])
    assert bench.store.calls.children(turn_id) == [(one, True), (two, True)]
    first = reply(one, text="first", usage=Usage(input_tokens=3))
    assert bench.store.calls.deliver(turn_id, first) is None
    assert isinstance(bench.try_claim(turn_id), Refusal)
    second = reply(two, status=TurnStatus.FAILED, error=TurnError(code="provider", message="no"))
    wakeup = bench.store.calls.deliver(turn_id, second)
    assert wakeup is not None
    assert wakeup.turn_id == turn_id
    assert bench.store.calls.deliver(turn_id, second) == wakeup
    book = bench.claim(turn_id).calls
    assert book.answered("c1")
    assert book.children == {"c1": (one, two)}
    assert book.replies == {one.turn_id: first, two.turn_id: second}
    assert bench.store.turn(turn_id).losses == 0


def test_replies_that_came_before_the_turn_could_wait(bench: Bench) -> None:
    turn_id = waiting(bench, children=[child()])
    bench.store.calls.deliver(turn_id, reply(child(), text="early"))
    lease = bench.claim(turn_id).lease
    book = suspend(bench, lease, children=[child()])
    assert isinstance(book, CallBook)
    assert book.answered("c1")


def test_children_are_started_by_an_errand_that_stays_until_it_is_done(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(dispatch_grace=0.001)
    turn_id = waiting(bench, children=[child()])
    start = errand(ErrandKind.START, turn_id, turn_id)
    assert errands(bench) == [start]
    bench.store.calls.settle([start])
    assert errands(bench) == []


def test_a_child_that_ends_leaves_its_reply_to_be_delivered(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=0.001)
    parent = create_turn_id("parent")
    turn_id = bench.enqueue(parent_id=parent, depth=1)
    claim = bench.claim(turn_id)
    assert (claim.turn.parent_id, claim.turn.depth) == (parent, 1)
    bench.complete(claim.lease)
    assert errands(bench) == [errand(ErrandKind.DELIVER, turn_id, turn_id)]
    other = bench.enqueue(parent_id=parent, depth=1)
    assert bench.store.cancel(other).outcome is CancelOutcome.CANCELLED
    assert errand(ErrandKind.DELIVER, other, other) in errands(bench)


def test_children_of_a_turn_that_ends_are_to_be_cancelled(bench: Bench) -> None:
    one, two = child(), child(number=1)
    turn_id = waiting(bench, children=[one, two])
    bench.store.calls.deliver(turn_id, reply(one))
    assert bench.store.cancel(turn_id).outcome is CancelOutcome.CANCELLED
    assert errands(bench) == [errand(ErrandKind.CANCEL, two.turn_id, turn_id)]
    assert bench.store.calls.deliver(turn_id, reply(two)) is None


def test_a_failed_turn_keeps_what_it_knows_of_its_calls(bench: Bench) -> None:
    turn_id = waiting(bench, children=[child()])
    bench.store.calls.deliver(turn_id, reply(child(), text="kept"))
    error = TurnError(code="provider", message="no")
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED, error=error))
    assert bench.store.retry(turn_id, "again") is not None
    assert bench.claim(turn_id).calls.replies[child().turn_id].text == "kept"


def test_a_turn_that_is_to_be_cancelled_does_not_wait(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    bench.store.cancel(turn_id)
    assert suspend(bench, lease, questions=[question()]) is Suspended.CANCELLED
    assert suspend(bench, lease, children=[child()]) is Suspended.CANCELLED


def test_a_deadline_wakes_whatever_waits(bench: Bench) -> None:
    turn_id = bench.enqueue(timeout=0.001)
    lease = bench.claim(turn_id).lease
    assert suspend(bench, lease, questions=[question(timeout=60)]) is Suspended.PARKED
    time.sleep(0.01)
    claim = bench.claim(turn_id)
    assert claim.turn.deadline_at is not None
    assert claim.turn.deadline_at <= claim.now
    assert bench.store.park(claim.lease, 60, failures=1, steps=0, reason="provider")
    assert isinstance(bench.try_claim(turn_id), Claim)


def test_the_earlier_deadline_counts(bench: Bench) -> None:
    now = bench.claim(bench.enqueue("x"), "x").now
    later = bench.enqueue("y", timeout=60, deadline_at=now + 5)
    assert bench.store.turn(later).deadline_at == pytest.approx(now + 5, abs=0.01)
    sooner = bench.enqueue("z", timeout=5, deadline_at=now + 60)
    deadline = bench.store.turn(sooner).deadline_at
    # Since it was accepted: a little after `now`.
    assert deadline == pytest.approx(now + 25, abs=20.1)
    assert bench.store.turn(bench.enqueue("w")).deadline_at is None


def test_a_conversation_that_was_handed_over_stays_so_until_it_is_reset(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    ending = completed(turn_id)
    handed = Ending(
        status=ending.status, messages=ending.messages, answered_by="b", handed_over=True
    )
    bench.store.commit(lease, handed)
    assert bench.store.turn(turn_id).answered_by == "b"
    claim = bench.claim(bench.enqueue())
    assert claim.answering == "b"
    back = Ending(status=TurnStatus.COMPLETED, answered_by="a", handed_over=True)
    bench.store.commit(claim.lease, back)
    claim = bench.claim(bench.enqueue())
    assert claim.answering in (None, "a")
    bench.store.commit(claim.lease, handed)
    bench.store.reset(C)
    assert bench.claim(bench.enqueue()).answering is None
