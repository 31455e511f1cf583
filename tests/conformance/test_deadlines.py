"""Deadlines of turns that wait: behind another one, or for a worker that does not come."""

from __future__ import annotations

import time

import pytest

from agentapi.ids import partition_of_turn
from agentapi.stores import Ending, Errand, ErrandKind, RefusalReason
from agentapi.turns import ChildTurn, EventType, HeldCalls, OnAbort, OnBusy, TurnStatus
from tests.conformance.stores import Bench, C
from tests.conformance.test_busy import accept
from tests.conformance.test_claim import refused

PAST = 0.001


def errand(turn_id: str, kind: ErrandKind = ErrandKind.EXPIRE) -> Errand:
    return Errand(kind=kind, turn_id=turn_id, partition=partition_of_turn(turn_id))


def errands(bench: Bench) -> list[Errand]:
    return [late for late in bench.store.overdue() if isinstance(late, Errand)]


@pytest.mark.parametrize("on_abort", OnAbort)
def test_a_turn_behind_another_fails_at_its_deadline(bench: Bench, on_abort: OnAbort) -> None:
    head = bench.claim(bench.enqueue()).lease
    turn_id = bench.enqueue(timeout=0.05, on_abort=on_abort)
    behind = bench.enqueue()
    while errands(bench) != [errand(turn_id)]:
        time.sleep(0.01)
    for _ in range(2):
        assert bench.store.expire(turn_id) is None
    turn = bench.store.turn(turn_id)
    assert turn.status is TurnStatus.FAILED
    assert turn.error is not None
    assert turn.error.code == "deadline"
    events = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert [event.type for event in events] == [EventType.FAILED]
    assert events[0].data["code"] == "deadline"
    assert errands(bench) == []
    wakeup = bench.complete(head)
    assert wakeup is not None
    assert wakeup.turn_id == behind
    assert [message.turn_id for message in bench.store.history(C)] == [head.turn_id] * 2


def test_a_head_that_no_worker_has_begun_gives_way_to_the_next(bench: Bench) -> None:
    turn_id = bench.enqueue(deadline_at=PAST)
    behind = bench.enqueue()
    for _ in range(2):
        wakeup = bench.store.expire(turn_id)
        assert wakeup is not None
        assert wakeup.turn_id == behind
    assert refused(bench.try_claim(turn_id)) is RefusalReason.ENDED
    bench.complete(bench.claim(behind).lease)
    assert not bench.has_due(C)


def test_the_only_turn(bench: Bench) -> None:
    turn_id = bench.enqueue(deadline_at=PAST)
    assert bench.store.expire(turn_id) is None
    assert bench.store.turn(turn_id).status is TurnStatus.FAILED
    assert not bench.has_due(C)
    assert bench.store.overdue() == []


def test_a_turn_that_has_begun_is_left_to_its_worker(bench: Bench) -> None:
    turn_id = bench.enqueue(deadline_at=PAST)
    lease = bench.claim(turn_id).lease
    assert bench.store.expire(turn_id) is None
    bench.store.release(lease)
    assert bench.store.expire(turn_id) is None
    bench.complete(bench.claim(turn_id).lease)
    assert bench.store.expire(turn_id) is None
    assert bench.store.turn(turn_id).status is TurnStatus.COMPLETED


def test_a_turn_that_is_being_cancelled_is_left_to_its_worker(bench: Bench) -> None:
    turn_id = bench.enqueue(deadline_at=PAST)
    accept(bench, OnBusy.INTERRUPT)
    assert bench.store.turn(turn_id).cancel_requested
    assert bench.store.expire(turn_id) is None
    assert bench.store.turn(turn_id).status is TurnStatus.QUEUED


def test_a_deadline_that_has_not_passed_and_a_turn_without_one(bench: Bench) -> None:
    for turn_id in (bench.enqueue(timeout=600), bench.enqueue()):
        assert bench.store.expire(turn_id) is None
        assert bench.store.turn(turn_id).status is TurnStatus.QUEUED


@pytest.mark.parametrize("how", ["commit", "cancel"])
def test_an_end_strikes_the_errand(bench: Bench, how: str) -> None:
    turn_id = bench.enqueue(deadline_at=PAST)
    assert errands(bench) == [errand(turn_id)]
    if how == "commit":
        bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
        bench.store.retry(turn_id, "operation")
    else:
        bench.store.cancel(turn_id)
    assert errands(bench) == []


def test_a_retry_has_no_deadline(bench: Bench) -> None:
    turn_id = bench.enqueue(deadline_at=PAST)
    bench.store.expire(turn_id)
    assert bench.store.retry(turn_id, "operation") is not None
    assert bench.store.expire(turn_id) is None
    assert errands(bench) == []
    assert bench.store.turn(turn_id).status is TurnStatus.QUEUED
    bench.complete(bench.claim(turn_id).lease)


def test_the_parent_of_a_child_that_expires_is_told(bench: Bench) -> None:
    parent = bench.enqueue("parent")
    lease = bench.claim(parent, "parent").lease
    child = ChildTurn(
        call_id="k", turn_id=bench.enqueue(parent_id=parent, deadline_at=PAST), conversation_id=C,
        agent="a", input="hi",
    )  # fmt: skip
    bench.store.calls.suspend(lease, HeldCalls(children=[child]))
    bench.store.expire(child.turn_id)
    assert errand(child.turn_id, ErrandKind.DELIVER) in errands(bench)


def test_errands_that_are_late_keep_no_conversation_waiting(bench: Bench) -> None:
    for _ in range(5):
        bench.enqueue(deadline_at=PAST)
    bench.overdue_now(C)
    late = bench.store.overdue(2)
    assert late.count(C) == 1
    assert len(late) == 3


def test_a_message_with_a_deadline_is_not_merged(bench: Bench) -> None:
    first = bench.enqueue()
    dated = accept(bench, OnBusy.MERGE, timeout=600)
    assert dated.created
    assert accept(bench, OnBusy.MERGE).created
    assert bench.store.turn(first).input == "hi"
