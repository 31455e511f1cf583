"""Why turns are claimed, how long they waited, and what the fleet's turns wait for."""

from __future__ import annotations

from typing import Any

import pytest

from agentapi.ids import partition_of
from agentapi.stores import Backlog, ClaimCause, Ending
from agentapi.stores.backlog import ReadyTurn
from agentapi.turns import ChildTurn, HeldCalls, Question, TurnError, TurnStatus
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, beside


def approval() -> HeldCalls:
    return HeldCalls(questions=[Question(call_id="c", tool="look", arguments={})])


def about(seconds: float) -> Any:
    """Not less, and little more: a busy machine takes its time between two calls."""
    return pytest.approx(seconds + 12, abs=12.1)


def waited(bench: Bench, turn_id: str) -> float:
    claim = bench.claim(turn_id)
    assert claim.waited is not None
    return claim.waited


def test_a_new_turn_is_claimed_for_the_first_time(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id, token="t")
    assert claim.cause is ClaimCause.FIRST
    assert claim.waited == about(0)
    again = bench.claim(turn_id, token="t")
    assert (again.cause, again.waited) == (None, None)


def test_each_cause_of_a_further_claim(bench: Bench) -> None:
    turn_id = bench.enqueue()
    bench.claim(turn_id)
    bench.expire_lease(C)
    claim = bench.claim(turn_id)
    assert claim.cause is ClaimCause.LEASE_EXPIRED
    bench.store.release(claim.lease)
    claim = bench.claim(turn_id)
    assert claim.cause is ClaimCause.WORKER_STOPPED
    assert bench.store.park(claim.lease, 0, failures=1, steps=0, reason="provider")
    claim = bench.claim(turn_id)
    assert claim.cause is ClaimCause.WOKEN
    error = TurnError(code="internal", message="broken")
    bench.store.commit(claim.lease, Ending(status=TurnStatus.FAILED, error=error))
    bench.store.retry(turn_id, "once")
    # It has been suspect since it lost its worker, until it ended.
    assert bench.claim(turn_id).cause in (ClaimCause.RETRIED, ClaimCause.LEASE_EXPIRED)


def test_a_claim_says_whose_lease_expired(bench: Bench) -> None:
    turn_id = bench.enqueue()
    first = bench.claim(turn_id, owner="first")
    assert first.lost is None
    bench.expire_lease(C)
    second = bench.claim(turn_id, owner="second", token="t")
    assert second.lost is not None
    assert second.lost.worker == "first"
    assert second.lost.at == pytest.approx(first.now, abs=0.01)
    assert bench.claim(turn_id, owner="second", token="t").lost is None
    bench.store.release(second.lease)
    assert bench.claim(turn_id).lost is None


def test_a_retry_is_a_cause_of_its_own(bench: Bench) -> None:
    turn_id = bench.enqueue()
    error = TurnError(code="internal", message="broken")
    failed = Ending(status=TurnStatus.FAILED, error=error)
    bench.store.commit(bench.claim(turn_id).lease, failed)
    bench.store.retry(turn_id, "once")
    assert bench.claim(turn_id).cause is ClaimCause.RETRIED


def test_a_dead_process_is_a_lost_worker(bench: Bench) -> None:
    turn_id = bench.enqueue()
    bench.claim(turn_id, token="process:1")
    assert bench.store.perish(C, turn_id, "process") is not None
    assert bench.claim(turn_id).cause is ClaimCause.LEASE_EXPIRED


def test_the_wait_is_measured_from_when_the_turn_could_run(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=5)
    late = bench.enqueue()
    # Its wake-up should have been claimed 30 seconds ago, 5 seconds after it was accepted.
    bench.overdue_now(C, since=30)
    assert waited(bench, late) == about(35)


def test_the_wait_goes_on_when_the_wake_up_is_sent_again(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=5)
    turn_id = bench.enqueue()
    bench.overdue_now(C, since=30)
    assert bench.store.redispatch([C], {})
    assert bench.store.backlog().oldest_ready == about(35)
    bench.overdue_now(C, since=1)
    assert bench.store.redispatch([C], {})
    claim = bench.claim(turn_id)
    assert claim.waited == about(35)
    # The next attempt starts its waits again.
    bench.store.release(claim.lease)
    assert waited(bench, turn_id) == about(0)


def test_the_wait_goes_on_while_the_wake_up_is_in_line(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=5)
    turn_id = bench.enqueue()
    bench.overdue_now(C, since=30)
    assert bench.store.redispatch([C], {partition_of(C): 1.0}) == []
    assert bench.store.backlog().oldest_ready == about(35)
    assert waited(bench, turn_id) == about(35)


def test_a_turn_that_was_woken_has_waited_since_then(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    assert bench.store.park(lease, 0, failures=1, steps=0, reason="provider")
    bench.overdue_now(C, since=0.001)
    claim = bench.claim(turn_id)
    assert claim.cause is ClaimCause.WOKEN
    assert claim.waited == about(0)


def test_an_idle_fleet_has_no_backlog(bench: Bench) -> None:
    assert bench.store.backlog() == Backlog()
    turn_id = bench.enqueue()
    bench.complete(bench.claim(turn_id).lease)
    assert bench.store.backlog() == Backlog()


def test_the_backlog_counts_the_first_turn_of_each_conversation(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=5, lease_ttl=10)
    names = ["ready", beside("ready"), "runs", "provider", "asks", "lost"]
    turns = {name: bench.enqueue(name) for name in names}
    # Behind another one: it waits for its conversation, not for a worker.
    bench.enqueue("ready")
    bench.claim(turns["runs"], "runs")
    parked = bench.claim(turns["provider"], "provider").lease
    assert bench.store.park(parked, 600, failures=1, steps=0, reason="provider")
    bench.store.calls.suspend(bench.claim(turns["asks"], "asks").lease, approval())
    bench.claim(turns["lost"], "lost")
    bench.expire_lease("lost")
    bench.overdue_now("lost", since=3)
    backlog = bench.store.backlog()
    assert sum(backlog.ready.values()) == 3
    assert backlog.ready[partition_of("ready")] >= 2
    assert backlog.running == 1
    assert backlog.parked == {"provider": 1, "approval": 1}
    assert backlog.oldest_ready == about(3)
    assert backlog.first_ready == ReadyTurn(
        turn_id=turns["lost"], conversation_id="lost", agent="a"
    )


def test_a_parent_waits_for_its_children(bench: Bench) -> None:
    turn_id = bench.enqueue()
    child = ChildTurn(
        call_id="c", turn_id=bench.enqueue("child"), conversation_id="child", agent="b", input="do"
    )
    bench.store.calls.suspend(bench.claim(turn_id).lease, HeldCalls(children=[child]))
    assert bench.store.backlog().parked == {"children": 1}


def test_a_parked_turn_whose_time_has_come_is_ready(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    assert bench.store.park(lease, 0, failures=1, steps=0, reason="provider")
    backlog = bench.store.backlog()
    assert (sum(backlog.ready.values()), backlog.parked) == (1, {})
