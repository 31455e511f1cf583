"""What can be asked of a turn that has ended, whatever happens to its conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.messages import AssistantMessage, Message, Usage, UserMessage
from agentapi.errors import TurnNotFound
from agentapi.stores import Dropped, Ending, ForgottenTurn, OpenConversation, Reading, Unended
from agentapi.turns import EventType, OnAbort, OnBusy, Turn, TurnError, TurnStatus
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, completed


def run(bench: Bench, said: str = "hi", reply: str = "yo", **more: Any) -> str:
    turn_id = bench.enqueue(C, said, **more)
    bench.complete(bench.claim(turn_id).lease, said, reply)
    return turn_id


def texts(turn: Turn) -> list[str]:
    return [message.content for message in turn.messages]


def test_it_has_all_that_it_had(bench: Bench) -> None:
    turn_id = bench.enqueue(
        C,
        "hi",
        user_id="anna",
        tenant_id="acme",
        metadata={"order": 7},
        stream=True,
        on_abort=OnAbort.KEEP,
    )
    usage = Usage(input_tokens=7, output_tokens=9, cached_tokens=3, cost=0.25)
    ending = Ending(
        status=TurnStatus.COMPLETED,
        messages=completed(turn_id).messages,
        steps=1,
        usage=usage,
        answered_by="b",
        structured=True,
    )
    lease = bench.claim(turn_id).lease
    for _ in range(2):
        bench.store.commit(lease, ending)
    turn = bench.store.turn(turn_id)
    assert (turn.input, turn.text, turn.status) == ("hi", "yo", TurnStatus.COMPLETED)
    assert list(turn.messages) == list(ending.messages)
    assert (turn.user_id, turn.tenant_id, turn.metadata) == ("anna", "acme", {"order": 7})
    assert (turn.stream, turn.on_abort, turn.attempt, turn.steps) == (True, OnAbort.KEEP, 1, 1)
    assert (turn.usage, turn.answered_by, turn.structured) == (usage, "b", True)
    assert turn.worker == "w"
    past = bench.store.past(turn_id)
    assert past.turn == turn
    assert [mark.kind for mark in past.marks][:1] == ["c"]
    assert turn.ended_at
    [event] = bench.store.events({turn_id: turn.last_event - 1}, 0)[turn_id]
    assert event.type is EventType.COMPLETED


def test_it_stays_as_it_is_when_the_history_is_reset(bench: Bench) -> None:
    old = [run(bench, f"one {n}", f"reply {n}") for n in range(3)]
    bench.store.reset(C)
    new = run(bench, "two", "reply")
    bench.store.reset(C)
    newest = run(bench, "three", "reply")
    assert [texts(bench.store.turn(t)) for t in old] == [
        [f"one {n}", f"reply {n}"] for n in range(3)
    ]
    assert texts(bench.store.turn(new)) == ["two", "reply"]
    assert texts(bench.store.turn(newest)) == ["three", "reply"]
    assert len(bench.store.history(C)) == 2


def test_a_deletion_after_a_reset_deletes_the_turns_before_it(bench: Bench) -> None:
    turns = [run(bench, f"one {n}") for n in range(3)]
    bench.store.reset(C)
    turns += [run(bench, "two")]
    bench.store.reset(C)
    turns += [run(bench, "three")]
    deleted = wipe(bench)
    assert sorted(turn.input_bytes for turn in deleted) == [3, 5, 5, 5, 5]
    for turn_id in turns:
        with pytest.raises(TurnNotFound):
            bench.store.turn(turn_id)


def test_it_stays_as_it_is_when_messages_are_removed(bench: Bench) -> None:
    first, second, third = (run(bench, f"say {n}", f"reply {n}") for n in range(3))
    store = bench.store.conversations

    def remove(position: int, operation: str) -> None:
        page = store.page(C, None, Reading(max_bytes=1000))
        assert page is not None
        assert store.remove(C, None, page.messages[position], operation)

    remove(3, "the reply of the second")
    remove(0, "the message of the first")
    remove(0, "the reply of the first")
    for number, turn_id in enumerate((first, second, third)):
        assert texts(bench.store.turn(turn_id)) == [f"say {number}", f"reply {number}"]
    assert len(bench.store.history(C)) == 3


def test_it_stays_as_it_is_when_a_turn_before_it_is_retried(bench: Bench) -> None:
    failed = bench.enqueue(C, "bad", on_failure=OnAbort.KEEP)
    lease = bench.claim(failed).lease
    said: list[Message] = [
        UserMessage(content="bad", turn_id=failed),
        AssistantMessage(content="it failed", turn_id=failed),
    ]
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, messages=said, steps=0))
    good = run(bench, "good", "fine")
    assert len(bench.store.history(C)) == 4
    bench.store.retry(failed, "op")
    assert texts(bench.store.turn(good)) == ["good", "fine"]
    assert len(bench.store.history(C)) == 2


def test_a_message_that_joined_it_leads_to_it(bench: Bench) -> None:
    first = bench.enqueue(C, "one")
    lease = bench.claim(first).lease
    waiting = bench.enqueue(C, "two")
    merged = bench.enqueue(C, "three", on_busy=OnBusy.MERGE)
    bench.complete(lease, "one")
    bench.complete(bench.claim(waiting).lease, "two\n\nthree", "both")
    assert texts(bench.store.turn(merged)) == ["two\n\nthree", "both"]


def test_the_history_may_begin_with_other_messages(bench: Bench) -> None:
    seeds = [UserMessage(content=f"seed {n}") for n in range(5)]
    opening = OpenConversation(
        conversation_id=C, tenant_id=None, create=True, operation="seed", messages=seeds
    )
    bench.store.conversations.open(opening)
    turn_id = run(bench, "hi", "yo")
    assert texts(bench.store.turn(turn_id)) == ["hi", "yo"]
    page = bench.store.conversations.page(C, None, Reading(max_bytes=1000))
    assert page is not None
    for number in range(4):
        first = replace(page.messages[number], position=0)
        assert bench.store.conversations.remove(C, None, first, f"op {number}")
    assert texts(bench.store.turn(turn_id)) == ["hi", "yo"]


def test_it_keeps_its_messages_where_the_history_goes_first(make_bench: MakeBench) -> None:
    bench = make_bench(memory_ttl=60)
    turn_id = run(bench, "hi", "yo")
    bench.forget(C)
    assert texts(bench.store.turn(turn_id)) == ["hi", "yo"]


def wipe(bench: Bench) -> list[ForgottenTurn]:
    dropped = bench.store.conversations.drop(C, None, "op")
    assert isinstance(dropped, Dropped)
    left = 1
    deleted: list[ForgottenTurn] = []
    while left:
        wiped = bench.store.conversations.wipe(dropped, f"step {left} {len(deleted)}")
        left = wiped.left
        deleted += wiped.turns
    return deleted


def test_a_deletion_deletes_turns_that_left_nothing_too(bench: Bench) -> None:
    cancelled = bench.enqueue(C, "one")
    bench.store.cancel(cancelled)
    stopped = bench.enqueue(C, "two")
    lease = bench.claim(stopped).lease
    bench.store.cancel(stopped)
    # It still runs: its record must not stay when it ends before the next attempt.
    busy = bench.store.conversations.drop(C, None, "first")
    assert isinstance(busy, Unended)
    bench.store.commit(lease, Ending(status=TurnStatus.CANCELLED, messages=[], steps=0))
    failed = bench.enqueue(C, "three")
    error = TurnError(code="broken", message="it broke")
    ending = Ending(status=TurnStatus.FAILED, messages=[], steps=0, error=error)
    bench.store.commit(bench.claim(failed).lease, ending)
    done = run(bench, "four")
    assert len(wipe(bench)) == 4
    for turn_id in (cancelled, stopped, failed, done):
        with pytest.raises(TurnNotFound):
            bench.store.turn(turn_id)
