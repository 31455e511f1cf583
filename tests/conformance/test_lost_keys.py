"""Turns and conversations whose keys are gone: forgotten, evicted, lost in a failover."""

from __future__ import annotations

import pytest

from agentapi.errors import LeaseLost, TenantMismatch
from agentapi.ids import create_turn_id
from agentapi.stores import Accepted, Ending, RefusalReason, Refused
from agentapi.turns import NewTurn, OnBusy, TurnStatus
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C
from tests.conformance.test_busy import accept, woken
from tests.conformance.test_claim import refused


def enqueue_as(bench: Bench, tenant: str, turn_id: str) -> Accepted | Refused:
    new = NewTurn(
        turn_id=turn_id, conversation_id=C, agent="a", input=f"of {tenant}", tenant_id=tenant
    )
    [answer] = bench.store.enqueue([new])
    return answer


def test_the_sweep_passes_over_a_head_that_is_gone(bench: Bench) -> None:
    first, second, third = bench.enqueue(), bench.enqueue(), bench.enqueue()
    bench.lose(first)
    bench.lose(second)
    bench.overdue_now(C)
    [wakeup] = bench.store.redispatch([C], {})
    assert wakeup.turn_id == third
    assert bench.store.redispatch([C], {}) == []
    bench.complete(bench.claim(third).lease)
    assert not bench.has_due(C)
    assert refused(bench.try_claim(first)) is RefusalReason.MISSING


def test_the_sweep_forgets_a_conversation_without_any_turn(bench: Bench) -> None:
    bench.lose(bench.enqueue())
    bench.overdue_now(C)
    assert bench.store.redispatch([C], {}) == []
    assert not bench.has_due(C)
    assert accept(bench, OnBusy.REJECT).wakeup


def test_a_wake_up_for_a_head_that_is_gone_frees_the_next(bench: Bench) -> None:
    first, second = bench.enqueue(), bench.enqueue()
    bench.lose(first)
    assert refused(bench.try_claim(first)) is RefusalReason.MISSING
    while bench.store.overdue() != [C]:
        pass
    bench.claim(second)


def test_the_next_is_claimed_past_a_head_that_is_gone(bench: Bench) -> None:
    first, second = bench.enqueue(), bench.enqueue()
    bench.lose(first)
    bench.complete(bench.claim(second).lease)
    assert not bench.has_due(C)


def test_the_end_of_a_turn_wakes_past_one_that_is_gone(bench: Bench) -> None:
    first, second, third, fourth = (bench.enqueue() for _ in range(4))
    bench.lose(second)
    wakeup = bench.complete(bench.claim(first).lease)
    assert wakeup is not None
    assert wakeup.turn_id == third
    bench.lose(third)
    assert bench.store.cancel(fourth).wakeup is None
    assert not bench.has_due(C)


def test_a_new_message_finds_the_conversation_idle(bench: Bench) -> None:
    bench.lose(bench.enqueue())
    accepted = accept(bench, OnBusy.REJECT)
    assert woken(accepted) == accepted.turn_id
    bench.claim(accepted.turn_id)


def test_a_worker_of_a_turn_that_is_gone_writes_nothing(bench: Bench) -> None:
    lease = bench.claim(bench.enqueue()).lease
    bench.lose(lease.turn_id)
    for write in (
        lambda: bench.complete(lease),
        lambda: bench.store.release(lease),
        lambda: bench.store.park(lease, 1, failures=0, steps=0, reason="provider"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert bench.store.perish(C, lease.turn_id, lease.token) is None
    assert bench.store.history(C) == []


def test_a_repeat_after_its_conversation_was_forgotten_is_its_own_tenants(bench: Bench) -> None:
    turn_id = create_turn_id(C, "key")
    assert isinstance(enqueue_as(bench, "acme", turn_id), Accepted)
    bench.complete(bench.claim(turn_id).lease)
    bench.forget(C)
    assert isinstance(enqueue_as(bench, "evil", turn_id), TenantMismatch)
    again = enqueue_as(bench, "acme", turn_id)
    assert isinstance(again, Accepted)
    assert (again.turn_id, again.created, again.wakeup) == (turn_id, False, None)
    # Neither has begun the conversation again.
    other = create_turn_id(C)
    assert isinstance(enqueue_as(bench, "evil", other), Accepted)
    # And the repeat is still answered, now that it is somebody else's.
    assert isinstance(enqueue_as(bench, "acme", turn_id), Accepted)
    assert isinstance(enqueue_as(bench, "acme", create_turn_id(C)), TenantMismatch)


def fail(bench: Bench, turn_id: str) -> None:
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))


def test_a_retry_begins_a_forgotten_conversation_for_its_own_tenant(bench: Bench) -> None:
    turn_id = bench.enqueue(tenant_id="acme", user_id="ann")
    fail(bench, turn_id)
    bench.forget(C)
    for _ in range(2):
        wakeup = bench.store.retry(turn_id, "operation")
        assert wakeup is not None
        assert wakeup.turn_id == turn_id
    assert isinstance(enqueue_as(bench, "evil", create_turn_id(C)), TenantMismatch)
    bench.complete(bench.claim(turn_id).lease)
    assert len(bench.store.history(C)) == 2


def test_a_retry_into_somebody_elses_conversation_is_refused(bench: Bench) -> None:
    turn_id = bench.enqueue(tenant_id="acme")
    fail(bench, turn_id)
    bench.forget(C)
    assert isinstance(enqueue_as(bench, "evil", create_turn_id(C)), Accepted)
    with pytest.raises(TenantMismatch):
        bench.store.retry(turn_id, "operation")
    assert bench.store.turn(turn_id).status is TurnStatus.FAILED


def test_a_merged_message_stands_for_the_turn_that_it_joined(make_bench: MakeBench) -> None:
    bench = make_bench()
    first = bench.enqueue()
    message = accept(bench, OnBusy.MERGE)
    joined_id = create_turn_id(C)
    joined = accept(bench, OnBusy.MERGE, joined_id)
    assert (message.turn_id, joined.turn_id) == (first, first)
    fail(bench, first)
    wakeup = bench.store.retry(joined_id, "operation")
    assert wakeup is not None
    assert wakeup.turn_id == first
    assert accept(bench, OnBusy.MERGE, joined_id).turn_id == first
    assert bench.store.calls.pending(joined_id) == []
    bench.store.cancel(joined_id)
    assert bench.store.turn(first).status is TurnStatus.CANCELLED
    assert bench.store.turn(joined_id).turn_id == first
