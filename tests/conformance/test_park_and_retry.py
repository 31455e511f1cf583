"""Turns that wait without a worker, failed turns that run again, leases of dead processes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentapi.conversation.messages import Attachment, AttachmentKind, UserMessage
from agentapi.errors import ConversationBusy, LeaseLost, TurnNotRetryable
from agentapi.stores import CancelOutcome, Claim, Ending, Lease, NewEvent, Refusal, RefusalReason
from agentapi.turns import (
    EventType,
    HeldCalls,
    OnAbort,
    OnBusy,
    Question,
    TurnError,
    TurnStatus,
    Verdict,
    WaitingFor,
)
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, model_step, tool_step
from tests.conformance.test_busy import accept, woken

FAILED = Ending(
    status=TurnStatus.FAILED, error=TurnError(code="provider_unavailable", message="busy"), steps=2
)


def park(bench: Bench, lease: Lease, delay: float = 60, failures: int = 1, steps: int = 0) -> bool:
    return bench.store.park(lease, delay, failures=failures, steps=steps, reason="provider")


def reason(bench: Bench, turn_id: str) -> RefusalReason:
    refusal = bench.try_claim(turn_id)
    assert isinstance(refusal, Refusal)
    return refusal.reason


def test_a_parked_turn_holds_no_lease_and_wakes_in_time(bench: Bench) -> None:
    turn_id, behind = bench.enqueue(), bench.enqueue()
    lease = bench.claim(turn_id).lease
    assert park(bench, lease)
    assert park(bench, lease)
    turn = bench.store.turn(turn_id)
    assert turn.status is TurnStatus.PARKED
    assert (turn.parks, turn.losses, turn.failures) == (1, 0, 1)
    assert turn.wakes_at is not None
    # Since it parked: a little after it was accepted.
    assert turn.wakes_at - turn.created_at == pytest.approx(80, abs=20.1)
    assert bench.store.overdue() == []
    assert reason(bench, turn_id) is RefusalReason.PARKED
    assert reason(bench, behind) is RefusalReason.WAITING
    with pytest.raises(LeaseLost):
        bench.store.record(lease, 0, model_step())


def test_its_time_comes(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    bench.store.record(lease, 0, model_step())
    assert park(bench, lease, delay=0, failures=2, steps=1)
    assert bench.store.overdue() == [C]
    [wakeup] = bench.store.redispatch([C], {})
    assert wakeup.turn_id == turn_id
    claim = bench.claim(turn_id)
    assert list(claim.steps) == [model_step()]
    assert (claim.turn.attempt, claim.turn.losses, claim.turn.failures) == (2, 0, 2)
    assert claim.turn.wakes_at is None


def away(bench: Bench, turn_id: str, *names: str, conversation: str = C, **more: Any) -> None:
    """Claim a turn, and park it for providers that are away."""
    more = {"delay": 60.0, "failures": 3, "steps": 0, "lasted": 30.0, **more}
    lease = bench.claim(turn_id, conversation).lease
    assert bench.store.park(lease, reason="provider", names=names, **more)


def test_what_a_turn_waits_for_and_since_when(bench: Bench) -> None:
    turn_id = bench.enqueue()
    away(bench, turn_id, "openai", "gemini")
    turn = bench.store.turn(turn_id)
    waits = turn.waiting_for
    assert waits is not None
    assert (waits.kind, waits.names, waits.failures) == ("provider", ("openai", "gemini"), 3)
    assert waits.next_try_at == turn.wakes_at
    assert (waits.next_try_at or 0) - (waits.since or 0) == pytest.approx(90, abs=5)
    [*_, parked] = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert parked.data["waits_for"] == "openai or gemini"
    assert (parked.data["reason"], parked.data["failures"]) == ("provider", 3)


def test_it_is_known_until_the_call_has_succeeded(bench: Bench) -> None:
    turn_id = bench.enqueue()
    away(bench, turn_id, "openai", delay=0)
    since = waits_of(bench, turn_id).since
    claim = bench.claim(turn_id)
    assert claim.turn.waiting_for is not None
    assert (claim.turn.waiting_for.since, claim.turn.waiting_for.next_try_at) == (since, None)
    assert claim.turn.failures == 3
    # A worker that dies takes nothing of it with it.
    bench.expire_lease(C)
    lease = bench.claim(turn_id).lease
    assert waits_of(bench, turn_id).since == since
    bench.store.record(lease, 0, model_step())
    assert bench.store.turn(turn_id).waiting_for is None
    away_again = bench.store.park(
        lease, 60, failures=0, steps=1, reason="provider", names=["openai"], lasted=None
    )
    assert away_again
    assert (waits_of(bench, turn_id).since, waits_of(bench, turn_id).failures) == (None, 0)
    bench.store.cancel(turn_id)
    assert bench.store.turn(turn_id).waiting_for is None


def test_a_turn_that_waits_for_a_decision_waits_for_no_provider(bench: Bench) -> None:
    turn_id = bench.enqueue()
    away(bench, turn_id, "openai", delay=0)
    asked = Question(call_id="c", tool="pay", arguments={}, default=Verdict.REJECTED)
    bench.store.calls.suspend(bench.claim(turn_id).lease, HeldCalls(questions=(asked,)))
    assert bench.store.turn(turn_id).waiting_for is None
    assert bench.store.rouse("openai") == 0


def waits_of(bench: Bench, turn_id: str) -> WaitingFor:
    waits = bench.store.turn(turn_id).waiting_for
    assert waits is not None
    return waits


def test_a_provider_that_is_back_wakes_those_who_wait_one_after_the_other(bench: Bench) -> None:
    conversations = [f"user:{number}" for number in range(40)]
    turns = {c: bench.enqueue(c) for c in conversations}
    for conversation, turn_id in turns.items():
        away(bench, turn_id, "openai", conversation=conversation, delay=600)
    other = bench.enqueue("other")
    away(bench, other, "gemini", conversation="other", delay=600)
    soon = bench.enqueue("soon")
    away(bench, soon, "openai", conversation="soon", delay=0.01)
    before = bench.store.turn(other).wakes_at
    began = time.monotonic()
    assert bench.store.rouse("openai") in (len(turns), len(turns) + 1)
    took = time.monotonic() - began
    assert bench.store.rouse("openai") == 0
    wakes = sorted(bench.store.turn(turn_id).wakes_at or 0 for turn_id in turns.values())
    created = bench.store.turn(other).created_at
    assert wakes[-1] - created < 30
    # 41 turns at 50 a second. The shards of a cluster need not begin at the same time.
    assert 0.3 < wakes[-1] - wakes[0] <= 0.82 + took
    assert bench.store.turn(other).wakes_at == before
    assert (bench.store.turn(soon).wakes_at or 0) - created < 10


def test_who_waits_for_several_is_woken_by_any(bench: Bench) -> None:
    turn_id = bench.enqueue()
    away(bench, turn_id, "openai", "gemini", delay=600)
    assert bench.store.rouse("gemini") == 1
    assert bench.store.rouse("openai") == 0


def test_who_has_ended_or_gone_on_is_not_woken(bench: Bench) -> None:
    turn_id = bench.enqueue()
    away(bench, turn_id, "openai", delay=600)
    bench.store.cancel(turn_id)
    second = bench.enqueue()
    away(bench, second, "openai", delay=0)
    bench.claim(second)
    lost = bench.enqueue("lost")
    away(bench, lost, "openai", conversation="lost", delay=600)
    bench.lose(lost)
    assert bench.store.rouse("openai") == 0


def test_failures_of_an_earlier_call_do_not_count(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    assert park(bench, lease, delay=0, failures=2, steps=0)
    lease = bench.claim(turn_id).lease
    bench.store.record(lease, 0, model_step())
    bench.store.release(lease)
    assert bench.claim(turn_id).turn.failures == 0


def test_a_turn_that_is_to_be_cancelled_is_not_parked(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    bench.store.cancel(turn_id)
    assert not park(bench, lease)
    assert bench.store.turn(turn_id).status is TurnStatus.RUNNING


def test_a_parked_turn_is_cancelled_at_once(bench: Bench) -> None:
    turn_id, behind = bench.enqueue(), bench.enqueue()
    park(bench, bench.claim(turn_id).lease)
    cancelled = bench.store.cancel(turn_id)
    assert cancelled.outcome is CancelOutcome.CANCELLED
    assert cancelled.wakeup is not None
    assert cancelled.wakeup.turn_id == behind


def test_an_interrupted_parked_turn_does_not_wait_for_its_time(bench: Bench) -> None:
    turn_id = bench.enqueue()
    park(bench, bench.claim(turn_id).lease)
    assert woken(accept(bench, OnBusy.INTERRUPT)) == turn_id
    assert bench.claim(turn_id).turn.cancel_requested


def failed(bench: Bench, turn_id: str) -> None:
    lease = bench.claim(turn_id).lease
    bench.store.record(lease, 0, model_step())
    bench.store.record(lease, 1, tool_step())
    bench.store.commit(lease, FAILED)


def test_a_failed_turn_runs_again_behind_its_last_recorded_step(bench: Bench) -> None:
    turn_id = bench.enqueue()
    failed(bench, turn_id)
    wakeup = bench.store.retry(turn_id, "op")
    assert wakeup is not None
    assert (wakeup.turn_id, wakeup.agent) == (turn_id, "a")
    assert bench.store.retry(turn_id, "op") == wakeup
    assert bench.has_due(C)
    turn = bench.store.turn(turn_id)
    assert turn.status is TurnStatus.QUEUED
    assert turn.error is None
    assert turn.ended_at is None
    claim = bench.claim(turn_id)
    assert list(claim.steps) == [model_step(), tool_step()]
    assert not claim.turn.suspect
    assert bench.store.retry(turn_id, "op") is None
    bench.complete(claim.lease)
    assert len(bench.store.history(C)) == 2
    kinds = [event.type.value for event in bench.store.events({turn_id: -1}, 0)[turn_id]]
    assert kinds == ["started", "step", "step", "failed", "retried", "started", "completed"]


def test_a_retried_turn_waits_for_those_that_came_meanwhile(bench: Bench) -> None:
    turn_id = bench.enqueue()
    behind = bench.enqueue()
    failed(bench, turn_id)
    assert bench.store.retry(turn_id, "op") is None
    following = bench.complete(bench.claim(behind).lease)
    assert following is not None
    assert following.turn_id == turn_id


def test_only_failed_turns_are_retried(bench: Bench) -> None:
    turn_id = bench.enqueue()
    with pytest.raises(TurnNotRetryable, match="queued"):
        bench.store.retry(turn_id, "op")
    bench.complete(bench.claim(turn_id).lease)
    with pytest.raises(TurnNotRetryable, match="completed"):
        bench.store.retry(turn_id, "op")


def said(bench: Bench, conversation: str = C) -> list[str]:
    return [message.content for message in bench.store.history(conversation)]


def fail(bench: Bench, turn_id: str, *texts: str, refused: bool = False) -> None:
    left = [UserMessage(content=text, turn_id=turn_id) for text in texts]
    ending = Ending(status=TurnStatus.FAILED, messages=left, refused=refused)
    bench.store.commit(bench.claim(turn_id).lease, ending)


@pytest.mark.parametrize(
    ("on_abort", "on_failure", "refused", "kept"),
    [
        (OnAbort.KEEP, None, False, True),
        (OnAbort.KEEP, None, True, True),
        (OnAbort.DROP, None, False, False),
        (OnAbort.DROP, OnAbort.KEEP, False, True),
        (OnAbort.DROP, OnAbort.KEEP, True, False),
        (OnAbort.KEEP, OnAbort.DROP, False, False),
    ],
)
def test_what_a_failed_turn_leaves(
    bench: Bench, on_abort: OnAbort, on_failure: OnAbort | None, refused: bool, kept: bool
) -> None:
    turn_id = bench.enqueue(on_abort=on_abort, on_failure=on_failure)
    assert bench.store.turn(turn_id).on_failure is on_failure
    fail(bench, turn_id, "hi", refused=refused)
    assert said(bench) == (["hi"] if kept else [])
    assert bench.store.turn(turn_id).messages == ()


def test_a_turn_that_is_cancelled_leaves_nothing_by_default(bench: Bench) -> None:
    turn_id = bench.enqueue(on_failure=OnAbort.KEEP)
    left = [UserMessage(content="hi", turn_id=turn_id)]
    ending = Ending(status=TurnStatus.CANCELLED, messages=left)
    bench.store.commit(bench.claim(turn_id).lease, ending)
    assert said(bench) == []


def test_a_replaced_turn_that_fails_leaves_nothing(bench: Bench) -> None:
    turn_id = bench.enqueue(on_failure=OnAbort.KEEP)
    lease = bench.claim(turn_id).lease
    accept(bench, OnBusy.REPLACE)
    left = [UserMessage(content="hi", turn_id=turn_id)]
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, messages=left))
    assert said(bench) == []


def test_messages_with_another_policy_do_not_merge(bench: Bench) -> None:
    bench.enqueue(on_failure=OnAbort.KEEP)
    other = accept(bench, OnBusy.MERGE)
    assert other.created
    same = accept(bench, OnBusy.MERGE)
    assert not same.created


def test_a_retry_takes_back_what_the_turn_left(bench: Bench) -> None:
    first = bench.enqueue()
    bench.complete(bench.claim(first).lease, said="one", reply="yes")
    turn_id = bench.enqueue(on_failure=OnAbort.KEEP)
    fail(bench, turn_id, "two", 'quoted: ,"turn_id":"x"}', "four")
    later = bench.enqueue()
    bench.complete(bench.claim(later).lease, said="five", reply="yes")
    assert len(said(bench)) == 7
    assert bench.store.summarise(C, "text", generation=0, start=0, stop=4)

    assert bench.store.retry(turn_id, "op") is not None
    assert said(bench) == ["one", "yes", "five", "yes"]
    assert bench.store.summary(C).covered == 2
    assert bench.store.retry(turn_id, "op") is not None
    assert said(bench) == ["one", "yes", "five", "yes"]

    # It fails again, and is retried again: its messages are there once or not at all.
    fail(bench, turn_id, "two", "three")
    assert said(bench)[-2:] == ["two", "three"]
    assert bench.store.retry(turn_id, "again") is not None
    assert said(bench) == ["one", "yes", "five", "yes"]
    bench.complete(bench.claim(turn_id).lease, said="two", reply="at last")
    assert said(bench) == ["one", "yes", "five", "yes", "two", "at last"]


def test_a_retry_finds_what_was_left_far_back_and_after_a_reset_nothing(bench: Bench) -> None:
    turn_id = bench.enqueue(on_failure=OnAbort.KEEP)
    fail(bench, turn_id, *(f"{number}" for number in range(1_500)))
    for number in range(3):
        later = bench.enqueue()
        lease = bench.claim(later).lease
        filler = [UserMessage(content=f"{number}", turn_id=later)] * 400
        bench.store.commit(lease, Ending(status=TurnStatus.COMPLETED, messages=filler))
    bench.store.retry(turn_id, "op")
    assert len(said(bench)) == 1_200
    fail(bench, turn_id, "left")
    bench.store.reset(C)
    bench.store.retry(turn_id, "again")
    assert said(bench) == []


def test_a_turn_that_was_kept_has_its_images_for_its_retry(bench: Bench) -> None:
    image = Attachment(kind=AttachmentKind.IMAGE, blob="b" * 64, size=5, media_type="image/png")
    turn_id = bench.enqueue(
        on_failure=OnAbort.KEEP, attachments=(image,), blobs={"b" * 64: b"bytes"}
    )
    left = [UserMessage(content="see", attachments=(image,), turn_id=turn_id)]
    lease = bench.claim(turn_id).lease
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, messages=left))
    assert bench.store.blobs(C, ["b" * 64]) == {"b" * 64: b"bytes"}
    bench.store.retry(turn_id, "op")
    assert bench.store.history(C) == []
    assert bench.store.blobs(C, ["b" * 64]) == {"b" * 64: b"bytes"}


def test_what_a_turn_leaves_is_settled_when_it_ends(bench: Bench) -> None:
    for on_abort, on_busy, left in (
        (OnAbort.DROP, OnBusy.INTERRUPT, 1),
        (OnAbort.KEEP, OnBusy.REPLACE, 0),
    ):
        bench.store.reset(C)
        turn_id = bench.enqueue(on_abort=on_abort)
        lease = bench.claim(turn_id).lease
        newer = accept(bench, on_busy).turn_id
        said = [UserMessage(content="hi", turn_id=turn_id)]
        bench.store.commit(lease, Ending(status=TurnStatus.CANCELLED, messages=said))
        assert len(bench.store.history(C)) == left
        bench.complete(bench.claim(newer).lease)


def test_a_retry_needs_room(make_bench: MakeBench) -> None:
    bench = make_bench(inbox_limit=1)
    turn_id = bench.enqueue()
    failed(bench, turn_id)
    bench.enqueue()
    with pytest.raises(ConversationBusy):
        bench.store.retry(turn_id, "op")


def test_leases_of_a_dead_process_end_and_no_others(bench: Bench) -> None:
    mine, other = bench.enqueue(C), bench.enqueue("user:2")
    lease = bench.claim(mine, C, token="dead:1").lease
    bench.claim(other, "user:2", token="alive:1")
    assert bench.store.orphan("dead") == [C]
    assert bench.store.overdue() == [C]
    assert isinstance(bench.try_claim(mine, C), Claim)
    assert reason_of(bench, other, "user:2") is RefusalReason.LEASED
    with pytest.raises(LeaseLost):
        bench.complete(lease)


def reason_of(bench: Bench, turn_id: str, conversation_id: str) -> RefusalReason:
    refusal = bench.try_claim(turn_id, conversation_id)
    assert isinstance(refusal, Refusal)
    return refusal.reason


def test_the_next_owner_counts_its_batches_anew(bench: Bench) -> None:
    turn_id = bench.enqueue()
    delta = [NewEvent(type=EventType.DELTA, data={"text": "a"})]
    first = bench.claim(turn_id).lease
    bench.store.emit([(first, 1, delta), (first, 2, delta)])
    bench.expire_lease(C)
    second = bench.claim(turn_id).lease
    bench.store.emit([(second, 1, delta)])
    kinds = [event.type.value for event in bench.store.events({turn_id: -1}, 0)[turn_id]]
    assert kinds == ["started", "delta", "delta", "started", "delta"]
