"""What a new message does to a conversation that has turns, and what an aborted turn leaves."""

from __future__ import annotations

from typing import Any

import pytest

from agentapi.errors import ConversationBusy, LeaseLost, TurnNotFound
from agentapi.ids import create_turn_id
from agentapi.stores import Accepted, CancelOutcome, Claim, Refusal, RefusalReason, Renewal
from agentapi.turns import NewTurn, OnAbort, OnBusy, TurnStatus
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, model_step


def accept(bench: Bench, on_busy: OnBusy, turn_id: str | None = None, **more: Any) -> Accepted:
    new = NewTurn(
        turn_id=turn_id or create_turn_id(C),
        conversation_id=C,
        agent=more.pop("agent", "a"),
        input=more.pop("message", "newer"),
        on_busy=on_busy,
        **more,
    )
    [answer] = bench.store.enqueue([new])
    if not isinstance(answer, Accepted):
        raise answer
    return answer


def woken(accepted: Accepted) -> str | None:
    return accepted.wakeup.turn_id if accepted.wakeup else None


@pytest.mark.parametrize("on_busy", OnBusy)
def test_an_idle_conversation_takes_the_message_at_once(bench: Bench, on_busy: OnBusy) -> None:
    accepted = accept(bench, on_busy)
    assert accepted.created
    assert woken(accepted) == accepted.turn_id
    assert list(bench.claim(accepted.turn_id).history) == []


def test_reject(bench: Bench) -> None:
    first = bench.enqueue()
    with pytest.raises(ConversationBusy, match=r"1 turns.*'reject'.*not accepted"):
        accept(bench, OnBusy.REJECT)
    bench.complete(bench.claim(first).lease)
    assert accept(bench, OnBusy.REJECT).created


def test_a_repeat_is_answered_before_the_policy(bench: Bench) -> None:
    turn_id = accept(bench, OnBusy.REJECT).turn_id
    assert not accept(bench, OnBusy.REJECT, turn_id).created


@pytest.mark.parametrize("on_busy", [OnBusy.INTERRUPT, OnBusy.REPLACE])
def test_a_running_turn_is_asked_to_stop_and_the_new_one_waits(
    bench: Bench, on_busy: OnBusy
) -> None:
    running, waiting = bench.enqueue(), bench.enqueue()
    lease = bench.claim(running).lease
    accepted = accept(bench, on_busy)
    assert woken(accepted) is None
    assert bench.store.renew([lease]) == [Renewal(held=True, cancel=True)]
    turn = bench.store.turn(running)
    assert turn.on_abort is (OnAbort.KEEP if on_busy is OnBusy.INTERRUPT else OnAbort.DROP)
    assert not bench.store.turn(waiting).cancel_requested
    following = bench.complete(lease)
    assert following is not None
    assert following.turn_id == waiting


def test_replace_ends_a_turn_that_no_worker_has_at_once(bench: Bench) -> None:
    first = bench.enqueue()
    accepted = accept(bench, OnBusy.REPLACE)
    assert woken(accepted) == accepted.turn_id
    assert bench.store.turn(first).status is TurnStatus.CANCELLED
    repeat = accept(bench, OnBusy.REPLACE, accepted.turn_id)
    assert (repeat.created, woken(repeat)) == (False, accepted.turn_id)
    assert bench.store.turn(accepted.turn_id).status is TurnStatus.QUEUED


def test_replace_ends_a_turn_whose_worker_is_gone_and_fences_it(bench: Bench) -> None:
    first = bench.enqueue()
    lease = bench.claim(first).lease
    bench.store.record(lease, 0, model_step())
    bench.expire_lease(C)
    accepted = accept(bench, OnBusy.REPLACE)
    assert woken(accepted) == accepted.turn_id
    with pytest.raises(LeaseLost):
        bench.complete(lease)
    assert bench.store.history(C) == []


def test_interrupt_leaves_it_to_a_worker_to_keep_what_was_done(bench: Bench) -> None:
    first = bench.enqueue()
    lease = bench.claim(first).lease
    bench.store.record(lease, 0, model_step())
    bench.expire_lease(C)
    accepted = accept(bench, OnBusy.INTERRUPT)
    assert woken(accepted) == first
    claim = bench.claim(first)
    assert claim.turn.cancel_requested
    assert claim.turn.on_abort is OnAbort.KEEP
    assert list(claim.steps) == [model_step()]


def test_interrupt_of_a_turn_that_no_worker_has_begun_keeps_its_message(bench: Bench) -> None:
    first = bench.enqueue()
    assert woken(accept(bench, OnBusy.INTERRUPT)) == first
    claim = bench.claim(first)
    assert claim.turn.cancel_requested
    assert claim.turn.on_abort is OnAbort.KEEP


def test_a_full_inbox_interrupts_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(inbox_limit=1)
    first = bench.enqueue()
    with pytest.raises(ConversationBusy, match="AGENTAPI_INBOX_LIMIT"):
        accept(bench, OnBusy.REPLACE)
    assert bench.store.turn(first).status is TurnStatus.QUEUED


def test_merge_joins_the_newest_that_waits(bench: Bench) -> None:
    running = bench.enqueue(message="first")
    bench.claim(running)
    waiting = bench.enqueue(message="second")
    other = create_turn_id(C)
    for _ in range(2):
        merged = accept(bench, OnBusy.MERGE, other, message="third")
        assert (merged.turn_id, merged.created, merged.wakeup) == (waiting, False, None)
    assert bench.store.turn(waiting).input == "second\n\nthird"
    assert bench.store.turn(other).turn_id == waiting


def test_merge_does_not_join_a_turn_that_has_begun(bench: Bench) -> None:
    running = bench.enqueue(message="first")
    lease = bench.claim(running).lease
    assert accept(bench, OnBusy.MERGE).created
    bench.store.release(lease)
    assert bench.store.turn(running).input == "first"


@pytest.mark.parametrize(
    "other",
    [
        {"agent": "b"},
        {"user_id": "somebody"},
        {"metadata": {"x": 1}},
        {"stream": True},
        {"on_abort": OnAbort.KEEP},
        {"context": {"plan": "free"}},
    ],
)
def test_merge_joins_only_its_like(bench: Bench, other: dict[str, Any]) -> None:
    bench.enqueue(message="first")
    assert accept(bench, OnBusy.MERGE, **other).created


def test_merge_joins_turns_of_the_same_context(bench: Bench) -> None:
    first = bench.enqueue(message="first", context={"plan": "free"})
    assert accept(bench, OnBusy.MERGE, context={"plan": "free"}).turn_id == first
    assert accept(bench, OnBusy.MERGE, context={"plan": "paid"}).created
    assert bench.store.turn(first).context == {"plan": "free"}


def test_merge_never_makes_a_message_too_long(make_bench: MakeBench) -> None:
    bench = make_bench(max_message_bytes=12)
    first = bench.enqueue(message="12345")
    assert accept(bench, OnBusy.MERGE, message="ab123").turn_id == first
    assert accept(bench, OnBusy.MERGE, message="c").created


def test_a_cancelled_turn_that_keeps_is_ended_by_the_next_worker(bench: Bench) -> None:
    turn_id = bench.enqueue(on_abort=OnAbort.KEEP)
    lease = bench.claim(turn_id).lease
    bench.expire_lease(C)
    cancelled = bench.store.cancel(turn_id)
    assert cancelled.outcome is CancelOutcome.REQUESTED
    assert cancelled.wakeup is not None
    assert cancelled.wakeup.turn_id == turn_id
    taken = bench.claim(turn_id)
    assert taken.turn.cancel_requested
    with pytest.raises(LeaseLost):
        bench.complete(lease)


def test_a_cancelled_turn_that_keeps_but_has_not_begun_leaves_at_once(bench: Bench) -> None:
    turn_id = bench.enqueue(on_abort=OnAbort.KEEP)
    assert bench.store.cancel(turn_id).outcome is CancelOutcome.CANCELLED
    refusal = bench.try_claim(turn_id)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.ENDED


def test_nobody_finds_a_turn_that_never_was(bench: Bench) -> None:
    with pytest.raises(TurnNotFound):
        bench.store.retry(create_turn_id(C), "op")
    assert not isinstance(bench.try_claim(create_turn_id(C)), Claim)
