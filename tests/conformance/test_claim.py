"""Claims, leases and epochs."""

from __future__ import annotations

import pytest

from agentapi.conversation.messages import UserMessage
from agentapi.conversation.window import Window
from agentapi.errors import JournalBehind, LeaseLost
from agentapi.ids import create_turn_id
from agentapi.stores import Ending, NewEvent, Recorded, Refusal, RefusalReason, Renewal
from agentapi.turns import EventType, TurnStatus
from tests.conformance.stores import Bench, C, completed, model_step, tool_step


def refused(answer: object) -> RefusalReason:
    assert isinstance(answer, Refusal)
    return answer.reason


def test_only_the_head_can_be_claimed_and_only_once(bench: Bench) -> None:
    first, second = bench.enqueue(), bench.enqueue()
    assert refused(bench.try_claim(second)) is RefusalReason.WAITING
    claim = bench.claim(first, owner="w1")
    epoch = claim.lease.epoch
    assert (claim.turn.attempt, claim.turn.worker) == (1, "w1")
    assert claim.turn.status is TurnStatus.RUNNING
    assert refused(bench.try_claim(first, owner="w2")) is RefusalReason.LEASED
    wakeup = bench.complete(claim.lease)
    assert wakeup is not None
    assert wakeup.turn_id == second
    assert refused(bench.try_claim(first)) is RefusalReason.ENDED
    assert bench.claim(second).lease.epoch > epoch
    assert refused(bench.try_claim(create_turn_id(C))) is RefusalReason.MISSING


def test_a_repeat_of_a_claim_gets_the_same_lease(bench: Bench) -> None:
    turn_id = bench.enqueue()
    first = bench.claim(turn_id, token="t")
    again = bench.claim(turn_id, token="t")
    assert again.lease == first.lease
    assert again.turn.attempt == 1


def test_conversations_do_not_wait_for_each_other(bench: Bench) -> None:
    one, other = bench.enqueue("one"), bench.enqueue("other")
    bench.claim(one, "one")
    bench.claim(other, "other")


def test_a_takeover_continues_behind_the_last_recorded_step(bench: Bench) -> None:
    turn_id = bench.enqueue()
    old = bench.claim(turn_id)
    assert bench.store.record(old.lease, 0, model_step()) == Recorded()
    bench.expire_lease(C)
    new = bench.claim(turn_id)
    assert new.lease.epoch > old.lease.epoch
    assert new.turn.attempt == 2
    assert list(new.steps) == [model_step()]


def test_a_zombie_writes_nothing(bench: Bench) -> None:
    turn_id = bench.enqueue()
    old = bench.claim(turn_id).lease
    bench.expire_lease(C)
    new = bench.claim(turn_id).lease
    before = bench.store.events({turn_id: -1}, 0)
    with pytest.raises(LeaseLost, match=f"epoch {old.epoch} "):
        bench.store.record(old, 0, model_step())
    with pytest.raises(LeaseLost):
        bench.complete(old)
    with pytest.raises(LeaseLost):
        bench.store.release(old)
    assert bench.store.renew([old, new]) == [Renewal(held=False), Renewal(held=True)]
    bench.store.emit([(old, 1, [NewEvent(type=EventType.DELTA, data={"text": "x"})])])
    assert bench.store.events({turn_id: -1}, 0) == before
    assert bench.store.history(C) == []
    bench.complete(new)
    assert len(bench.store.history(C)) == 2
    with pytest.raises(LeaseLost):
        bench.complete(old)
    assert len(bench.store.history(C)) == 2


def test_an_expired_lease_that_nobody_took_is_still_held(bench: Bench) -> None:
    lease = bench.claim(bench.enqueue()).lease
    bench.expire_lease(C)
    assert bench.store.renew([lease]) == [Renewal(held=True)]
    assert bench.complete(lease) is None


def test_record_is_idempotent_by_its_number(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    bench.store.record(lease, 0, model_step())
    bench.store.record(lease, 0, model_step())
    bench.store.record(lease, 1, tool_step())
    bench.expire_lease(C)
    assert list(bench.claim(turn_id).steps) == [model_step(), tool_step()]
    events = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert [event.type for event in events].count(EventType.STEP) == 2


def test_a_step_that_leaves_a_gap_is_refused(bench: Bench) -> None:
    lease = bench.claim(bench.enqueue()).lease
    bench.store.record(lease, 0, model_step())
    with pytest.raises(JournalBehind, match="gap") as refusal:
        bench.store.record(lease, 2, model_step())
    assert refusal.value.length == 1


def test_commit_is_idempotent_and_answers_as_it_did(bench: Bench) -> None:
    first, second, third = bench.enqueue(), bench.enqueue(), bench.enqueue()
    lease = bench.claim(first).lease
    answer = bench.complete(lease)
    assert answer is not None
    assert answer.turn_id == second
    assert bench.complete(lease) == answer
    bench.complete(bench.claim(second).lease)
    assert bench.complete(lease) == answer
    assert len(bench.store.history(C)) == 4
    assert refused(bench.try_claim(second)) is RefusalReason.ENDED
    assert bench.claim(third)


def test_a_failed_turn_leaves_the_history_as_it_was(bench: Bench) -> None:
    turn_id = bench.enqueue()
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    assert bench.store.history(C) == []
    assert bench.store.turn(turn_id).status is TurnStatus.FAILED


def test_a_turn_that_is_handed_back_is_nobodys_failure(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    bench.store.record(lease, 0, model_step())
    bench.store.release(lease)
    bench.store.release(lease)
    assert bench.store.turn(turn_id).status is TurnStatus.QUEUED
    claim = bench.claim(turn_id)
    assert (claim.turn.attempt, claim.turn.handbacks) == (2, 1)
    assert list(claim.steps) == [model_step()]


def test_a_reset_keeps_the_running_turn_out_of_the_new_history(bench: Bench) -> None:
    first, second = bench.enqueue(), bench.enqueue()
    bench.complete(bench.claim(first).lease)
    lease = bench.claim(second).lease
    assert bench.store.reset(C) == 2
    bench.complete(lease)
    assert bench.store.history(C) == []
    assert bench.store.turn(second).status is TurnStatus.COMPLETED
    third = bench.enqueue()
    bench.complete(bench.claim(third).lease)
    assert len(bench.store.history(C)) == 2
    assert bench.store.reset("never seen") == 0


def test_a_claim_reads_no_more_than_its_window(bench: Bench) -> None:
    for number in range(100):
        turn_id = bench.enqueue(message=str(number))
        bench.complete(bench.claim(turn_id).lease, str(number))
    turn_id = bench.enqueue()
    everything = list(bench.store.history(C))
    for window in (Window(messages=10), Window(messages=None, tokens=100)):
        history = bench.claim(turn_id, token="t", window=window).history
        chosen = list(window.select(history))
        assert chosen == list(window.select(everything))
        assert 0 < len(chosen) < 200
    assert list(Window(messages=0).select(everything)) == []


def test_the_newest_turn_is_read_whole_even_when_it_is_larger_than_the_window(
    bench: Bench,
) -> None:
    turn_id = bench.enqueue()
    many = [UserMessage(content="hi"), *(completed("x").messages[1],) * 150]
    bench.store.commit(
        bench.claim(turn_id).lease, Ending(status=TurnStatus.COMPLETED, messages=many)
    )
    following = bench.enqueue()
    window = Window(messages=3)
    history = bench.claim(following, window=window).history
    assert list(window.select(history)) == many
