"""Cancellation, events, and what the sweep finds."""

from __future__ import annotations

import threading
import time

import pytest

from agentapi.errors import LeaseLost
from agentapi.ids import partition_of
from agentapi.stores import Cancellation, CancelOutcome, NewEvent, Renewal
from agentapi.stores.groups import SWEEP_GROUPS
from agentapi.turns import EventType, TurnStatus
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, model_step
from tests.faults import until

P = partition_of(C)
ALL = frozenset(range(SWEEP_GROUPS))


def test_cancelling_the_waiting_head_wakes_the_next(bench: Bench) -> None:
    first, second = bench.enqueue(), bench.enqueue()
    done = bench.store.cancel(first)
    assert done.outcome is CancelOutcome.CANCELLED
    assert done.wakeup is not None
    assert done.wakeup.turn_id == second
    assert bench.store.cancel(first) == done
    assert bench.store.turn(first).status is TurnStatus.CANCELLED
    bench.claim(second)


def test_cancelling_a_turn_in_the_middle_wakes_nobody(bench: Bench) -> None:
    first, second, third = bench.enqueue(), bench.enqueue(), bench.enqueue()
    assert bench.store.cancel(second) == Cancellation(outcome=CancelOutcome.CANCELLED)
    wakeup = bench.complete(bench.claim(first).lease)
    assert wakeup is not None
    assert wakeup.turn_id == third


def test_a_running_turn_is_asked_to_stop(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    assert bench.store.cancel(turn_id).outcome is CancelOutcome.REQUESTED
    assert bench.store.cancel(turn_id).outcome is CancelOutcome.REQUESTED
    assert bench.store.renew([lease]) == [Renewal(held=True, cancel=True)]
    assert bench.store.record(lease, 0, model_step()).cancel
    bench.complete(lease)
    assert bench.store.cancel(turn_id) == Cancellation(outcome=CancelOutcome.ENDED)


def test_a_turn_whose_worker_is_gone_is_cancelled_and_its_zombie_fenced(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    bench.expire_lease(C)
    assert bench.store.cancel(turn_id).outcome is CancelOutcome.CANCELLED
    with pytest.raises(LeaseLost):
        bench.complete(lease)
    assert bench.store.history(C) == []
    assert not bench.has_due(C)
    assert bench.claim(bench.enqueue()).lease.epoch > lease.epoch + 1


def test_events_are_numbered_without_gaps_and_can_be_resumed(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    deltas = [NewEvent(type=EventType.DELTA, data={"text": text}) for text in "ab"]
    bench.store.emit([(lease, 1, deltas)])
    bench.store.emit([(lease, 1, deltas)])
    bench.store.emit([(lease, 2, deltas[:1])])
    bench.store.record(lease, 0, model_step())
    bench.complete(lease)
    events = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert [event.number for event in events] == [0, 1, 2, 3, 4, 5]
    assert [event.type.value for event in events] == [
        "started",
        "delta",
        "delta",
        "delta",
        "step",
        "completed",
    ]
    assert events[0].data == {"attempt": 1, "worker": "w"}
    assert bench.store.events({turn_id: 3}, 0) == {turn_id: events[4:]}
    assert bench.store.events({turn_id: 5}, 0) == {}
    assert bench.store.turn(turn_id).last_event == 5


def test_a_wait_for_events_ends_with_the_first_or_when_interrupted(bench: Bench) -> None:
    turn_id = bench.enqueue()
    timer = threading.Timer(0.1, lambda: bench.claim(turn_id))
    timer.start()
    found = bench.store.events({turn_id: -1}, 60)
    assert found[turn_id][0].type is EventType.STARTED
    timer.join()
    timer = threading.Timer(0.1, bench.store.interrupt)
    timer.start()
    begun = time.monotonic()
    assert bench.store.events({turn_id: 0}, 60) == {}
    assert time.monotonic() - begun < 30
    timer.join()


def test_what_is_overdue_is_dispatched_again_ever_more_rarely(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60)
    turn_id = bench.enqueue()
    assert bench.store.overdue() == []
    assert bench.store.redispatch([C], {}) == []
    for _ in range(3):
        bench.overdue_now(C)
        assert bench.store.overdue() == [C]
        [wakeup] = bench.store.redispatch([C], {})
        assert (wakeup.conversation_id, wakeup.turn_id, wakeup.agent) == (C, turn_id, "a")
        assert bench.store.redispatch([C], {}) == []
        assert bench.store.overdue() == []


def test_due_follows_the_inbox(bench: Bench) -> None:
    first, second = bench.enqueue(), bench.enqueue()
    assert bench.has_due(C)
    bench.complete(bench.claim(first).lease)
    assert bench.has_due(C)
    bench.complete(bench.claim(second).lease)
    assert not bench.has_due(C)


def test_one_leads_until_it_resigns(bench: Bench) -> None:
    for _ in range(2):
        assert bench.store.elect("one", ttl=60).leads
        assert not bench.store.elect("two", ttl=60).leads
    bench.store.resign("two")
    assert not bench.store.elect("two", ttl=60).leads
    bench.store.resign("one")
    assert bench.store.elect("two", ttl=0.001).leads
    while not bench.store.elect("one", ttl=60).leads:
        pass


def test_workers_share_the_groups(bench: Bench) -> None:
    def shares(workers: int) -> list[frozenset[int]]:
        return [bench.store.elect(f"{n}", ttl=60).groups for n in range(workers)]

    assert shares(1) == [ALL]
    for workers in (2, 3, 5, 20):
        shares(workers)
        shared = shares(workers)
        sizes = sorted(map(len, shared))
        assert sizes[-1] - sizes[0] <= 1
        assert sum(sizes) == SWEEP_GROUPS
        assert frozenset().union(*shared) == ALL
        # Whoever came first still leads, and nothing changes any more.
        assert 0 in shared[0]
        assert shares(workers) == shared
    for number in range(3, 20):
        bench.store.resign(f"{number}")
    shares(3)
    assert sorted(map(len, shares(3))) == [5, 5, 6]


def test_the_groups_of_a_worker_that_dies_are_taken(bench: Bench) -> None:
    bench.store.elect("one", ttl=60)
    bench.store.elect("two", ttl=0.05)
    bench.store.elect("three", ttl=60)
    taken: frozenset[int] = frozenset()
    while len(taken) < SWEEP_GROUPS:
        taken = bench.store.elect("one", ttl=60).groups | bench.store.elect("three", ttl=60).groups
    # It was only late: it gets a share again, and no more.
    assert 0 < len(bench.store.elect("two", ttl=60).groups) <= 6


def test_all_learn_whether_anybody_sweeps(bench: Bench) -> None:
    # Who has got its groups only now has not swept them, whatever it did before.
    assert bench.store.elect("one", ttl=60, swept=True).since_sweep is None
    assert bench.store.elect("two", ttl=60, swept=True).since_sweep is None
    assert bench.store.elect("one", ttl=60, swept=True).since_sweep is None
    assert bench.store.since_sweep() is None
    assert bench.store.elect("two", ttl=60, swept=True).since_sweep is not None
    before = bench.store.elect("one", ttl=60, swept=True).since_sweep
    assert before is not None
    # One of two that does not sweep is enough.
    while (after := bench.store.elect("one", ttl=60, swept=True).since_sweep) == before:
        pass
    assert after is not None
    assert after > before
    read = bench.store.since_sweep()
    assert read is not None
    assert read >= after


def test_the_sweep_of_some_partitions(bench: Bench) -> None:
    for conversation in ("here", "there"):
        bench.enqueue(conversation)
    here, there = partition_of("here"), partition_of("there")
    assert here != there
    assert bench.store.hasten(partitions=[here]) == 1
    for conversation in ("here", "there"):
        bench.overdue_now(conversation)
    assert bench.store.overdue(partitions=[here]) == ["here"]
    assert bench.store.overdue(partitions=[there]) == ["there"]
    assert bench.store.overdue(partitions=[p for p in range(256) if p not in (here, there)]) == []


def test_a_wake_up_that_is_only_in_line_is_not_sent_again(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60)
    bench.enqueue()
    assert bench.store.claimed() == {}
    for _ in range(3):
        bench.overdue_now(C)
        assert bench.store.redispatch([C], {P: 0}) == []
        assert bench.store.overdue() == []
    # One that was sent later has been claimed.
    bench.overdue_now(C)
    assert bench.store.redispatch([C], {P: time.time() + 61})


def test_a_wake_up_is_in_line_for_a_minute_at_most(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60)
    bench.enqueue()
    bench.overdue_now(C, since=61)
    assert bench.store.redispatch([C], {P: 0})


def test_one_in_line_is_looked_at_again_when_it_has_waited_twice_as_long(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(dispatch_grace=0.1)
    bench.enqueue()
    bench.overdue_now(C, since=2)
    began = time.monotonic()
    assert bench.store.redispatch([C], {P: 0}) == []
    until(lambda: bench.store.overdue() == [C])
    assert time.monotonic() - began > 1.9


def test_how_long_one_is_in_line_is_not_counted_from_the_last_look(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60)
    turn_id = bench.enqueue()
    bench.overdue_now(C, since=30)
    sent = time.time() - 30
    assert bench.store.redispatch([C], {P: 0}) == []
    bench.overdue_now(C)
    assert bench.store.redispatch([C], {P: sent + 5})
    bench.claim(turn_id)


def test_how_far_the_queue_has_come_is_told_by_what_was_claimed_in_line(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(dispatch_grace=60)
    turn_id = bench.enqueue()
    bench.overdue_now(C, since=30)
    assert bench.store.redispatch([C], {P: 0}) == []
    bench.claim(turn_id)
    assert bench.store.claimed() == {P: pytest.approx(time.time() - 30, abs=20)}


def test_overdue_conversations_of_a_partition_are_dispatched_together(
    make_bench: MakeBench,
) -> None:
    # Long enough for all that must be accepted before.
    bench = make_bench(dispatch_grace=60)
    beside = [c for c in (f"c:{n}" for n in range(40_000)) if partition_of(c) == P][:120]
    turns = [bench.enqueue(c) for c in beside]
    other = bench.enqueue("elsewhere")
    for conversation_id in (*beside[1:], "elsewhere"):
        bench.overdue_now(conversation_id)
    found = bench.store.redispatch([*beside, "elsewhere"], {})
    assert {wakeup.turn_id for wakeup in found} == {*turns[1:], other}
    assert [w.conversation_id for w in found if w.turn_id == other] == ["elsewhere"]
    assert bench.store.overdue() == []


def test_what_was_not_sent_is_not_in_line(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60)
    turn_id = bench.enqueue()
    for _ in range(2):
        bench.claim(turn_id)
        bench.expire_lease(C)
        bench.overdue_now(C)
        assert bench.store.redispatch([C], {P: 0})
        # From here on it waits for the wake-up that was just sent.
        bench.overdue_now(C)
        assert bench.store.redispatch([C], {P: 0}) == []


def test_how_far_the_wake_ups_of_a_partition_have_come(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60)
    turn_id = bench.enqueue()
    begun = time.time()
    bench.claim(turn_id)
    [(partition, claimed)] = bench.store.claimed().items()
    assert partition == P
    assert begun + 50 < claimed < begun + 61
