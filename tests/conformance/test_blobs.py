"""Bytes of images and files, kept beside a conversation, on both stores."""

from __future__ import annotations

from agentapi.attachments import File, Image, content_of
from agentapi.turns import OnBusy
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


def test_a_message_with_images_is_not_merged(bench: Bench) -> None:
    enqueue(bench)
    other = accept(bench, OnBusy.MERGE)
    assert other.created
    assert len(bench.store.history(C)) == 0
