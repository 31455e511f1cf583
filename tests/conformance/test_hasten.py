"""After an outage of the broker, turns that wait for a wake-up are due at once; others are not."""

from __future__ import annotations

from agentapi.stores.answers import LONGEST_GRACE
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench


def test_turns_that_wait_for_a_wake_up_are_due_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(dispatch_grace=60, lease_ttl=60)
    sent, taken, parked, running = (
        bench.enqueue(conversation_id=c) for c in ("sent", "taken", "parked", "running")
    )
    lease = bench.claim(taken, "taken").lease
    bench.store.release(lease)
    for conversation_id in ("taken", "sent"):
        bench.overdue_now(conversation_id)
    assert len(bench.store.redispatch(["taken", "sent"], {})) == 2
    lease = bench.claim(parked, "parked").lease
    assert bench.store.park(lease, LONGEST_GRACE, failures=1, steps=0, reason="provider")
    bench.claim(running, "running")
    assert bench.store.overdue() == []
    assert bench.store.hasten() == 2
    assert sorted(map(str, bench.store.overdue())) == ["sent", "taken"]
    # A repeat finds nothing more.
    assert bench.store.hasten() == 0
    found = bench.store.redispatch(["sent", "taken", "parked", "running"], {})
    assert {wakeup.turn_id for wakeup in found} == {sent, taken}


def test_a_turn_that_was_handed_back_for_a_while_waits_on(bench: Bench) -> None:
    turn = bench.enqueue()
    bench.store.release(bench.claim(turn).lease, 60)
    assert bench.store.hasten() == 0
    assert bench.store.overdue() == []
