"""Bytes of images and files, kept beside a conversation, on both stores."""

from __future__ import annotations

from agentapi.conversation.messages import AssistantMessage, UserMessage
from agentapi.conversation.user_input import File, Image, content_of
from agentapi.stores import Ending
from agentapi.turns import OnBusy, TurnStatus
from tests.conformance.stores import Bench, C
from tests.conformance.test_busy import accept

CONTENT = content_of(["Look", Image(data=b"\x00\xff bytes", media_type="image/png")])
[NAME] = CONTENT.blobs


def enqueue(bench: Bench) -> str:
    return bench.enqueue(attachments=CONTENT.attachments, blobs=CONTENT.blobs)


def test_they_come_with_the_turn_and_stay_with_the_conversation(bench: Bench) -> None:
    turn_id = enqueue(bench)
    claim = bench.claim(turn_id)
    assert tuple(claim.turn.attachments) == CONTENT.attachments
    bench.complete(claim.lease)
    assert bench.store.blobs(C, [NAME, "none"]) == {NAME: b"\x00\xff bytes"}
    assert tuple(bench.store.turn(turn_id).attachments) == CONTENT.attachments
    bench.store.reset(C)
    assert bench.store.blobs(C, [NAME]) == {}


def test_a_reset_leaves_them_to_turns_that_wait(bench: Bench) -> None:
    first = bench.claim(enqueue(bench))
    other = content_of(["And", File(data=b"other", media_type="text/plain")])
    waiting = bench.enqueue(attachments=other.attachments, blobs=other.blobs)
    bench.complete(first.lease)
    bench.store.reset(C)
    assert bench.store.blobs(C, [NAME]) == {}
    assert bench.store.blobs(C, list(other.blobs)) == other.blobs
    # Once their turn has ended they are forgotten like all else.
    bench.complete(bench.claim(waiting).lease)
    bench.store.reset(C)
    assert bench.store.blobs(C, list(other.blobs)) == {}


def other_content(bench: Bench, data: bytes = b"other") -> tuple[str, str]:
    content = content_of(["And", File(data=data, media_type="text/plain")])
    turn_id = bench.enqueue(attachments=content.attachments, blobs=content.blobs)
    return turn_id, next(iter(content.blobs))


def test_a_cancelled_turn_takes_its_own_with_it(bench: Bench) -> None:
    bench.enqueue()
    turn_id, name = other_content(bench)
    same, _ = other_content(bench)
    bench.store.cancel(turn_id)
    # A turn that waits has the same.
    assert bench.store.blobs(C, [name])
    bench.store.cancel(same)
    assert bench.store.blobs(C, [name]) == {}


def test_what_the_history_has_stays(bench: Bench) -> None:
    turn_id = enqueue(bench)
    lease = bench.claim(turn_id).lease
    said = UserMessage(content="Look", attachments=CONTENT.attachments, turn_id=turn_id)
    replied = AssistantMessage(content="yo", turn_id=turn_id)
    bench.store.commit(lease, Ending(status=TurnStatus.COMPLETED, messages=[said, replied]))
    again = enqueue(bench)
    bench.store.cancel(again)
    assert bench.store.blobs(C, [NAME]) == CONTENT.blobs


def test_a_failed_turn_gets_its_own_back_when_it_is_retried(bench: Bench) -> None:
    turn_id = enqueue(bench)
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    assert bench.store.blobs(C, [NAME]) == {}
    for _ in range(2):
        bench.store.retry(turn_id, "operation")
        assert bench.store.blobs(C, [NAME]) == CONTENT.blobs


def test_a_turn_that_never_ran_gets_its_own_back_too(bench: Bench) -> None:
    turn_id = bench.enqueue(attachments=CONTENT.attachments, blobs=CONTENT.blobs, deadline_at=0.001)
    bench.store.expire(turn_id)
    assert bench.store.blobs(C, [NAME]) == {}
    bench.store.retry(turn_id, "operation")
    assert bench.store.blobs(C, [NAME]) == CONTENT.blobs


def test_a_message_with_images_is_not_merged(bench: Bench) -> None:
    enqueue(bench)
    other = accept(bench, OnBusy.MERGE)
    assert other.created
    assert len(bench.store.history(C)) == 0
