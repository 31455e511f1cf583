"""A turn that lost its worker runs where its death harms nobody."""

from __future__ import annotations

from typing import Any

import pytest

from agentapi.errors import LeaseLost
from agentapi.stores import CancelOutcome, Claim, Ending, Refusal, RefusalReason
from agentapi.turns import OnAbort, TurnError, TurnStatus
from tests.conformance.stores import Bench, C, model_step


def lose(bench: Bench, turn_id: str, **more: Any) -> Claim:
    claim = bench.claim(turn_id, **more)
    bench.expire_lease(C)
    return claim


def refused(bench: Bench, turn_id: str) -> RefusalReason:
    answer = bench.try_claim(turn_id, isolated=False)
    assert isinstance(answer, Refusal), answer
    return answer.reason


def test_only_a_process_of_its_own_may_claim_a_turn_that_lost_its_worker(bench: Bench) -> None:
    turn_id = bench.enqueue()
    old = lose(bench, turn_id, isolated=False)
    assert refused(bench, turn_id) is RefusalReason.SUSPECT
    assert refused(bench, turn_id) is RefusalReason.SUSPECT
    turn = bench.store.turn(turn_id)
    assert (turn.status, turn.suspect, turn.losses, turn.deaths) == (TurnStatus.QUEUED, True, 1, 0)
    with pytest.raises(LeaseLost):
        bench.store.record(old.lease, 0, model_step())
    claim = bench.claim(turn_id)
    assert claim.lease.epoch > old.lease.epoch
    bench.complete(claim.lease)
    assert bench.store.turn(turn_id).status is TurnStatus.COMPLETED


def test_a_suspect_is_not_overdue_while_it_is_being_started(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lose(bench, turn_id)
    assert refused(bench, turn_id) is RefusalReason.SUSPECT
    assert bench.store.overdue() == []
    assert bench.has_due(C)


def test_it_stays_suspect_through_waits_and_hand_backs(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lose(bench, turn_id)
    claim = bench.claim(turn_id)
    bench.store.release(claim.lease)
    assert refused(bench, turn_id) is RefusalReason.SUSPECT
    claim = bench.claim(turn_id)
    assert bench.store.park(claim.lease, 0.001, failures=1, steps=0, reason="provider")
    bench.overdue_now(C)
    while refused(bench, turn_id) is RefusalReason.PARKED:
        pass
    assert refused(bench, turn_id) is RefusalReason.SUSPECT


def test_turns_that_were_handed_back_or_waited_are_not_suspect(bench: Bench) -> None:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id, isolated=False)
    bench.store.release(claim.lease)
    claim = bench.claim(turn_id, isolated=False)
    bench.store.park(claim.lease, 0.001, failures=1, steps=0, reason="provider")
    while isinstance(answer := bench.try_claim(turn_id, isolated=False), Refusal):
        assert answer.reason is RefusalReason.PARKED
    assert not answer.turn.suspect


def test_only_deaths_in_a_process_of_its_own_count_and_each_once(bench: Bench) -> None:
    turn_id = bench.enqueue()
    for _ in range(5):
        lose(bench, turn_id)
    assert bench.store.perish(C, turn_id, "elsewhere") is None
    for death in range(1, bench.settings.max_attempts + 1):
        process = f"process-{death}"
        bench.claim(turn_id, token=f"{process}:token")
        for _ in range(2):
            perished = bench.store.perish(C, turn_id, process)
            assert perished is not None
            assert (perished.deaths, perished.wakeup.turn_id) == (death, turn_id)
    turn = bench.store.turn(turn_id)
    assert (turn.deaths, turn.losses) == (3, 8)
    # There is nothing left to run: any worker may end it.
    assert bench.claim(turn_id, isolated=False).turn.deaths == 3


def test_a_process_that_let_go_of_its_turn_did_not_die_of_it(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lose(bench, turn_id)
    claim = bench.claim(turn_id, token="process:token")
    bench.store.release(claim.lease)
    assert bench.store.perish(C, turn_id, "process") is None
    claim = bench.claim(turn_id, token="process:again")
    bench.complete(claim.lease)
    assert bench.store.perish(C, turn_id, "process") is None
    assert bench.store.turn(turn_id).deaths == 0


def test_a_cancelled_suspect_is_ended_by_any_worker(bench: Bench) -> None:
    turn_id = bench.enqueue(on_abort=OnAbort.KEEP)
    lose(bench, turn_id)
    assert bench.store.cancel(turn_id).outcome is CancelOutcome.REQUESTED
    claim = bench.claim(turn_id, isolated=False)
    assert claim.turn.cancel_requested


def test_a_retry_starts_without_suspicion(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lose(bench, turn_id)
    bench.claim(turn_id, token="process:token")
    bench.store.perish(C, turn_id, "process")
    claim = bench.claim(turn_id)
    error = TurnError(code="poison", message="it died")
    bench.store.commit(claim.lease, Ending(status=TurnStatus.FAILED, error=error))
    bench.store.retry(turn_id, "again")
    turn = bench.claim(turn_id, isolated=False).turn
    assert (turn.suspect, turn.deaths) == (False, 0)
