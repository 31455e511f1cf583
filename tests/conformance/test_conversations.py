"""Conversations outside of their turns: opened, labelled, read, copied, deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.messages import Attachment, AttachmentKind, Message, UserMessage, dumps
from agentapi.errors import TurnNotFound
from agentapi.ids import create_turn_id
from agentapi.stores import (
    ConversationRecord,
    Dropped,
    ForgottenTurn,
    Fork,
    OpenConversation,
    Page,
    Place,
    Reading,
    Search,
    SearchOn,
    StoredMessage,
    Unended,
)
from agentapi.stores.conversations import END
from agentapi.turns import OnBusy
from tests.conformance.stores import Bench, C, beside

ACME = "acme"
IMAGE = Attachment(kind=AttachmentKind.IMAGE, blob="b" * 64, size=5, media_type="image/png")


def said(count: int, first: int = 0) -> list[Message]:
    return [UserMessage(content=f"message {first + number}") for number in range(count)]


def opened(bench: Bench, conversation: str = C, **more: Any) -> ConversationRecord | None:
    more = {"tenant_id": ACME, "create": True, **more}
    return bench.store.conversations.open(OpenConversation(conversation_id=conversation, **more))


def page(bench: Bench, tenant: str | None = ACME, **more: Any) -> Page | None:
    reading = Reading(**{"max_bytes": 1_000_000, **more})
    return bench.store.conversations.page(C, tenant, reading)


def positions(found: Page | None) -> list[int]:
    assert found is not None
    return [message.position for message in found.messages]


def ended_turn(bench: Bench, conversation: str = C, message: str = "hi") -> str:
    turn_id = bench.enqueue(conversation, message, tenant_id=ACME)
    bench.complete(bench.claim(turn_id, conversation).lease)
    return turn_id


def test_a_conversation_is_created_once_and_keeps_its_labels(bench: Bench) -> None:
    assert opened(bench, create=False) is None
    made = opened(bench, metadata={"topic": "shoes"}, messages=said(2), operation="one")
    assert made is not None
    assert made.metadata == {"topic": "shoes"}
    assert made.created_at > 0
    assert opened(bench, create=False) == made
    assert bench.store.conversations.find(C, ACME) == made
    changed = opened(bench, metadata={})
    assert changed == replace(made, metadata={})
    assert bench.store.history(C) == said(2)


def test_another_tenants_conversation_does_not_exist(bench: Bench) -> None:
    opened(bench, messages=said(2), operation="one")
    store, [first, _] = bench.store.conversations, stored(bench)
    for tenant in ("evil", None):
        assert opened(bench, tenant_id=tenant) is None
        assert store.find(C, tenant) is None
        assert not store.remove(C, tenant, first, "op")
        assert store.drop(C, tenant, "op") is None
        assert page(bench, tenant) is None
        assert store.measure(C, tenant, Reading(max_bytes=100)) is None
        search = Search(turn_id="t", max_messages=10, max_bytes=100)
        assert store.seek(C, tenant, search) is None
    assert bench.store.history(C) == said(2)


def stored(bench: Bench) -> list[StoredMessage]:
    found = page(bench)
    assert found is not None
    return list(found.messages)


def test_an_operation_appends_once_whatever_happens_in_between(bench: Bench) -> None:
    for operation in ("one", "two", "one"):
        opened(bench, operation=operation, messages=said(1))
    assert bench.store.history(C) == said(1) * 2


def test_a_turn_sees_what_was_appended(bench: Bench) -> None:
    opened(bench, messages=said(3), operation="one")
    claim = bench.claim(bench.enqueue(tenant_id=ACME))
    assert list(claim.history) == said(3)


def test_a_removed_message_is_counted_off_the_summary(bench: Bench) -> None:
    messages, store = said(5), bench.store.conversations
    opened(bench, messages=messages, operation="all")
    assert bench.store.summarise(C, "summary", generation=0, start=0, stop=3)
    before = stored(bench)
    assert store.remove(C, ACME, before[1], "one")
    assert bench.store.summary(C).covered == 2
    assert store.remove(C, ACME, replace(before[4], position=3), "two")
    assert not store.remove(C, ACME, replace(before[4], position=3), "three")
    assert not store.remove(C, ACME, replace(before[4], position=99), "four")
    assert bench.store.summary(C).covered == 2
    assert bench.store.history(C) == [messages[0], messages[2], messages[3]]


def test_a_repeated_removal_takes_one_of_two_equal_messages(bench: Bench) -> None:
    opened(bench, messages=said(1) * 3, operation="all")
    [first, *_] = stored(bench)
    for operation in ("x", "x", "y"):
        assert bench.store.conversations.remove(C, ACME, first, operation)
    assert bench.store.history(C) == said(1)


def test_a_history_is_read_in_pieces(bench: Bench) -> None:
    opened(bench, messages=said(40), operation="all")
    found = page(bench)
    assert found is not None
    assert found.total == 40
    assert [message.message for message in found.messages] == said(40)
    assert [message.raw for message in found.messages] == [dumps(message) for message in said(40)]
    assert positions(page(bench, max_bytes=1)) == [0]
    assert positions(page(bench, max_bytes=1, up=False)) == [39]
    size = len(dumps(said(1)[0]))
    assert positions(page(bench, first=5, max_bytes=3 * size)) == [5, 6, 7]
    assert positions(page(bench, first=5, last=8, up=False)) == [8, 7, 6, 5]
    assert positions(page(bench, first=40)) == []
    assert positions(page(bench, last=END)) == list(range(40))


def test_a_history_is_measured_with_its_attachments(bench: Bench) -> None:
    messages = [UserMessage(content="see", attachments=(IMAGE,)), *said(99)]
    opened(bench, messages=messages, operation="all")
    at = size = 0
    steps = 0
    while at < 100:
        reading = Reading(first=at, last=99, max_bytes=10)
        measured = bench.store.conversations.measure(C, ACME, reading)
        assert measured is not None
        at, size, steps = measured.end, size + measured.size, steps + 1
    assert size == IMAGE.size + sum(len(dumps(message)) for message in messages)
    assert steps == 2


def find(bench: Bench, turn_id: str, **more: Any) -> Place | None:
    search = Search(turn_id=turn_id, **{"max_messages": 1, "max_bytes": 100, **more})
    found = bench.store.conversations.seek(C, ACME, search)
    steps = 0
    while isinstance(found, SearchOn):
        found = bench.store.conversations.seek(C, ACME, replace(search, before=found.before))
        steps += 1
    assert steps <= 4
    return found


def test_a_turns_newest_message_is_found_from_the_end(bench: Bench) -> None:
    opened(bench, messages=said(10), operation="before")
    turn_id = ended_turn(bench)
    opened(bench, messages=said(200), operation="behind")
    found = find(bench, turn_id)
    assert found is not None
    assert found.position == 11
    assert bench.store.history(C)[found.position].turn_id == turn_id
    assert find(bench, create_turn_id(C)) is None


def fork_of(bench: Bench, place: Place, **more: Any) -> Fork:
    return Fork(
        source=C,
        copy=beside(C),
        tenant_id=ACME,
        user_id="ann",
        place=place,
        idle_time=60,
        **{"step_bytes": 500, **more},
    )


def test_the_beginning_of_a_history_is_copied_in_steps(bench: Bench) -> None:
    data = {"b" * 64: b"bytes"}
    waiting = bench.enqueue(tenant_id=ACME, attachments=[IMAGE], blobs=data)
    opened(bench, messages=[UserMessage(content="see", attachments=(IMAGE,))], operation="image")
    opened(bench, messages=said(40), operation="before")
    bench.complete(bench.claim(waiting).lease)
    opened(bench, messages=said(9), operation="behind")
    place = find(bench, waiting)
    assert place is not None
    fork, store = fork_of(bench, place), bench.store.conversations
    copied: int | None = 0
    steps = []
    while copied is not None and copied <= place.position:
        copied = store.fork(fork, copied)
        steps.append(copied)
    assert len(steps) > 2
    assert bench.store.history(fork.copy) == bench.store.history(C)[: place.position + 1]
    assert bench.store.blobs(fork.copy, list(data)) == data
    # A repeat of an early step copies nothing.
    assert store.fork(fork, 0) == steps[-1]
    assert store.find(fork.copy, ACME) is not None
    changed = replace(fork, place=replace(place, digest="0" * 40))
    assert store.fork(changed, 0) is None
    assert store.fork(replace(fork, tenant_id="evil"), len(steps)) is None


def test_one_turn_continues_the_newest_in_its_place(bench: Bench) -> None:
    store = bench.store.conversations
    first, second = ended_turn(bench), ended_turn(bench)
    assert not store.continue_from(C, first, "op", take=True)
    assert store.continue_from(C, second, "asks", take=False)
    assert store.continue_from(C, second, "op", take=True)
    assert not store.continue_from(C, second, "late", take=True)
    assert store.continue_from(C, second, "op", take=True)
    assert not store.continue_from(C, create_turn_id(C), "op", take=True)


def test_a_waiting_turn_is_the_newest(bench: Bench) -> None:
    store, ended = bench.store.conversations, ended_turn(bench)
    waiting = [bench.enqueue(tenant_id=ACME) for _ in range(2)]
    assert not store.continue_from(C, ended, "op", take=True)
    assert not store.continue_from(C, waiting[0], "op", take=True)
    assert store.continue_from(C, waiting[1], "op", take=True)


def test_an_ended_turn_gets_other_metadata(bench: Bench) -> None:
    store, turn_id = bench.store.conversations, bench.enqueue(metadata={"a": 1}, tenant_id=ACME)
    assert not store.relabel(C, turn_id, {"b": 2}, "early")
    bench.complete(bench.claim(turn_id).lease)
    assert not store.relabel("another", turn_id, {"b": 2}, "op")
    assert not store.relabel(C, turn_id, {"b": 2}, "op", part=1)
    assert store.relabel(C, turn_id, {"b": 2}, "op")
    assert store.relabel(C, turn_id, {"c": 3}, "later")
    # A repeat, as of a client that lost the answer, does not undo what came after it.
    assert store.relabel(C, turn_id, {"b": 2}, "op")
    assert bench.store.turn(turn_id).metadata == {"c": 3}
    assert not store.relabel(C, create_turn_id(C), {}, "none")


def test_a_turn_is_forgotten_when_it_has_ended(bench: Bench) -> None:
    store, turn_id = bench.store.conversations, bench.enqueue(message="hello", tenant_id=ACME)
    assert store.forget(C, turn_id, "early") == Unended(turn_ids=[turn_id])
    accepted = bench.store.turn(turn_id).created_at
    bench.complete(bench.claim(turn_id).lease)
    assert store.forget("another", turn_id, "op") is None
    for _ in range(2):
        forgotten = store.forget(C, turn_id, "op")
        assert isinstance(forgotten, ForgottenTurn)
        assert forgotten.accepted_at == pytest.approx(accepted, abs=0.001)
        assert forgotten.input_bytes == 5
    assert store.forget(C, turn_id, "again") is None
    with pytest.raises(TurnNotFound):
        bench.store.turn(turn_id)
    assert len(bench.store.history(C)) == 2


def test_what_joined_a_forgotten_turn_goes_with_it(bench: Bench) -> None:
    turn_id = bench.enqueue(tenant_id=ACME)
    merged = create_turn_id(C)
    bench.enqueue(turn_id=merged, tenant_id=ACME, on_busy=OnBusy.MERGE)
    bench.store.cancel(turn_id)
    assert isinstance(bench.store.conversations.forget(C, turn_id, "op"), ForgottenTurn)
    with pytest.raises(TurnNotFound):
        bench.store.turn(merged)


def test_a_conversation_is_dropped_when_its_turns_have_ended(bench: Bench) -> None:
    store = bench.store.conversations
    opened(bench, messages=said(10), operation="all")
    turns = [ended_turn(bench, message="x" * size) for size in (1, 2)]
    waiting = bench.enqueue(tenant_id=ACME)
    assert store.drop(C, ACME, "early") == Unended(turn_ids=[waiting])
    bench.store.cancel(waiting)
    assert store.drop(C, ACME, "other", expected=13) is None
    dropped = store.drop(C, ACME, "op", expected=14)
    assert isinstance(dropped, Dropped)
    assert store.drop(C, ACME, "op", expected=14) == dropped
    assert store.find(C, ACME) is None
    assert bench.store.history(C) == []
    wiped = store.wipe(dropped, "one")
    assert store.wipe(dropped, "one") == wiped
    assert wiped.left == 0
    # With the one that was cancelled, which the history does not name.
    assert sorted(turn.input_bytes for turn in wiped.turns) == [1, 2, 2]
    for turn_id in [*turns, waiting]:
        with pytest.raises(TurnNotFound):
            bench.store.turn(turn_id)
    assert store.wipe(dropped, "two").turns == []


def test_a_dropped_conversation_can_be_begun_again(bench: Bench) -> None:
    opened(bench, messages=said(3), operation="all", metadata={"a": "b"})
    dropped = bench.store.conversations.drop(C, ACME, "op")
    assert isinstance(dropped, Dropped)
    again = opened(bench, tenant_id="other")
    assert again is not None
    assert again.metadata == {}
    bench.store.conversations.wipe(dropped, "one")
    assert bench.store.conversations.find(C, "other") == again


def test_a_large_conversation_is_wiped_in_steps(bench: Bench) -> None:
    opened(bench, messages=said(450), operation="all")
    dropped = bench.store.conversations.drop(C, ACME, "op")
    assert isinstance(dropped, Dropped)
    left: list[int] = []
    while not left or left[-1]:
        left.append(bench.store.conversations.wipe(dropped, f"step {len(left)}").left)
    assert left == [251, 51, 0]


def test_a_conversation_whose_turns_are_gone_can_be_dropped(bench: Bench) -> None:
    bench.lose(bench.enqueue(tenant_id=ACME))
    assert isinstance(bench.store.conversations.drop(C, ACME, "op"), Dropped)


def test_a_turn_of_a_dropped_conversation_cannot_be_claimed(bench: Bench) -> None:
    turn_id = bench.enqueue(tenant_id=ACME)
    bench.store.cancel(turn_id)
    assert isinstance(bench.store.conversations.drop(C, ACME, "op"), Dropped)
    assert bench.try_claim(turn_id).reason == "ended"
