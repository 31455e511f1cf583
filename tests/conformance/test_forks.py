"""Forks: a turn that is run again from one of its steps, on both stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
    dumps,
)
from agentapi.errors import InvalidInput, TurnNotForkable, TurnNotFound
from agentapi.ids import MAX_CONVERSATION_ID, create_turn_id, partition_of
from agentapi.redis.cluster import nodes_of
from agentapi.stores import Accepted, Ending, OpenConversation, StoredMessage
from agentapi.turns import ModelStep, OnAbort, RequestOptions, ToolStep, Turn, TurnError, TurnStatus
from orchestrator.fork import (
    ForkPlan,
    ForkRequest,
    copy_history,
    fork_id,
    forkable_steps,
    plan_fork,
)
from orchestrator.timeline_reader import timeline_of
from tests.conformance.stores import Bench, C, completed


def plan(bench: Bench, turn_id: str, key: str = "k", **more: Any) -> ForkPlan:
    return plan_fork(bench.store, bench.settings, ForkRequest(turn_id=turn_id, key=key, **more))


def fork(bench: Bench, turn_id: str, key: str = "k", **more: Any) -> Turn:
    made = plan(bench, turn_id, key, **more)
    copy_history(bench.store, bench.settings, made)
    [answer] = bench.store.enqueue([made.turn])
    assert isinstance(answer, Accepted), answer
    return bench.store.turn(answer.turn_id)


def said(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


def run(bench: Bench, text: str, **more: Any) -> str:
    turn_id = bench.enqueue(message=text, **more)
    bench.complete(bench.claim(turn_id).lease, text, f"re {text}")
    return turn_id


def with_tools(bench: Bench, **more: Any) -> str:
    """A turn of four steps: a response with two calls, their results, the reply."""
    turn_id = bench.enqueue(message="q", **more)
    lease = bench.claim(turn_id).lease
    two = tuple(ToolCall(id=name, name="look", arguments={"n": name}) for name in ("a", "b"))
    response = AssistantMessage(content="let me see", tool_calls=two, turn_id=turn_id)
    results = [
        ToolMessage(call_id=name, name="look", content=f"saw {name}", turn_id=turn_id)
        for name in ("b", "a")
    ]
    bench.store.record(lease, 0, ModelStep(message=response))
    for number, result in enumerate(results, 1):
        bench.store.record(lease, number, ToolStep(message=result))
    reply = AssistantMessage(content="done", turn_id=turn_id)
    ending = Ending(
        status=TurnStatus.COMPLETED,
        messages=[UserMessage(content="q", turn_id=turn_id), response, *results[::-1], reply],
        steps=4,
        last_step=ModelStep(message=reply),
    )
    bench.store.commit(lease, ending)
    return turn_id


def test_a_fork_has_what_was_said_before_and_the_message_of_its_own(bench: Bench) -> None:
    run(bench, "one")
    second = run(bench, "two", user_id="u")
    run(bench, "three")
    forked = fork(bench, second, message="TWO", by="kim")
    assert forked.input == "TWO"
    assert forked.conversation_id.startswith(f"{C}~")
    assert forked.user_id == "u"
    assert forked.forked_from is not None
    assert (forked.forked_from.turn_id, forked.forked_from.by) == (second, "kim")
    claim = bench.claim(forked.turn_id, forked.conversation_id)
    assert said(claim.history) == ["one", "re one"]
    assert said(bench.store.history(C)) == ["one", "re one", "two", "re two", "three", "re three"]


def test_the_first_turn_is_forked_without_a_history(bench: Bench) -> None:
    first = run(bench, "one")
    forked = fork(bench, first)
    assert forked.input == "one"
    assert bench.store.history(forked.conversation_id) == []
    assert plan(bench, first).place is None


def test_a_repeat_is_the_same_fork_and_another_key_another(bench: Bench) -> None:
    run(bench, "one")
    turn_id = run(bench, "two")
    first, again, other = (fork(bench, turn_id, key) for key in ("a", "a", "b"))
    assert first.turn_id == again.turn_id
    assert other.conversation_id != first.conversation_id
    assert len(bench.store.history(first.conversation_id)) == 2


def test_a_fork_that_died_between_its_two_writes_is_finished_by_a_repeat(bench: Bench) -> None:
    run(bench, "one")
    turn_id = run(bench, "two")
    # The process dies here, behind the copy and before the turn.
    copy_history(bench.store, bench.settings, plan(bench, turn_id))
    forked = fork(bench, turn_id)
    assert said(bench.store.history(forked.conversation_id)) == ["one", "re one"]
    claim = bench.claim(forked.turn_id, forked.conversation_id)
    assert said(claim.history) == ["one", "re one"]


def test_the_copy_of_a_fork_that_died_is_forgotten_and_that_of_a_fork_is_not(
    bench: Bench,
) -> None:
    client = getattr(bench.store, "_client", None)
    if client is None:
        # Memory lasts as long as its process: nothing is forgotten.
        return
    run(bench, "one")
    turn_id = run(bench, "two")
    made = plan(bench, turn_id)
    copy_history(bench.store, bench.settings, made)
    pattern = f"*{made.turn.conversation_id}*"
    keys = [key for node in nodes_of(client) for key in node.keys(pattern)]
    assert len(keys) == 2
    assert all(client.pttl(key) > 0 for key in keys)
    forked = fork(bench, turn_id)
    bench.complete(bench.claim(forked.turn_id, forked.conversation_id).lease)
    assert all(client.pttl(key) == -1 for key in keys)


def test_a_fork_takes_over_the_first_steps_and_runs_the_rest(bench: Bench) -> None:
    turn_id = with_tools(bench)
    timeline = timeline_of(bench.store.past(turn_id))
    assert forkable_steps(timeline) == [0, 3]
    forked = fork(bench, turn_id, step=3, message="Q")
    assert said(forked.prior) == ["let me see", "saw a", "saw b"]
    assert forked.steps == 0
    assert forked.forked_from is not None
    assert forked.forked_from.step == 3


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_fork_begins_only_before_a_model_call(bench: Bench, step: int) -> None:
    turn_id = with_tools(bench)
    with pytest.raises(InvalidInput, match="it can begin at 0, 3"):
        plan(bench, turn_id, step=step)


@pytest.mark.parametrize("step", [5, -1, True, "1"])
def test_a_step_that_does_not_exist(bench: Bench, step: Any) -> None:
    turn_id = with_tools(bench)
    with pytest.raises(InvalidInput, match="from 0 to 4"):
        plan(bench, turn_id, step=step)


def test_a_failed_turn_is_forked_from_its_journal(bench: Bench) -> None:
    run(bench, "one")
    turn_id = bench.enqueue(message="q", on_failure=OnAbort.KEEP)
    lease = bench.claim(turn_id).lease
    call = ToolCall(id="a", name="look", arguments={})
    response = AssistantMessage(content="", tool_calls=(call,), turn_id=turn_id)
    result = ToolMessage(call_id="a", name="look", content="saw", turn_id=turn_id)
    bench.store.record(lease, 0, ModelStep(message=response))
    bench.store.record(lease, 1, ToolStep(message=result, handoff="b"))
    error = TurnError(code="internal", message="no")
    user = UserMessage(content="q", turn_id=turn_id)
    bench.store.commit(
        lease,
        Ending(status=TurnStatus.FAILED, error=error, steps=2, messages=[user, response, result]),
    )
    forked = fork(bench, turn_id, step=2)
    assert said(forked.prior) == ["", "saw"]
    # From there on the other agent answered.
    assert forked.agent == "b"
    assert fork(bench, turn_id, "other").agent == "a"
    assert said(bench.store.history(forked.conversation_id)) == ["one", "re one"]


def test_a_turn_that_left_nothing_is_forked_where_it_ended(bench: Bench) -> None:
    run(bench, "one")
    cancelled = bench.enqueue(message="no")
    bench.store.cancel(cancelled)
    failed = bench.enqueue(message="bad", on_failure=OnAbort.DROP)
    error = TurnError(code="internal", message="no")
    bench.store.commit(
        bench.claim(failed).lease, Ending(status=TurnStatus.FAILED, error=error, steps=0)
    )
    run(bench, "two")
    for turn_id in (cancelled, failed):
        forked = fork(bench, turn_id)
        assert said(bench.store.history(forked.conversation_id)) == ["one", "re one"]


def test_a_turn_that_runs_is_forked_behind_what_was_said_so_far(bench: Bench) -> None:
    run(bench, "one")
    turn_id = bench.enqueue(message="two")
    claim = bench.claim(turn_id)
    forked = fork(bench, turn_id)
    bench.complete(claim.lease)
    assert said(bench.store.history(forked.conversation_id)) == ["one", "re one"]


def test_a_history_that_has_changed_is_not_copied_by_halves(bench: Bench) -> None:
    run(bench, "one")
    turn_id = run(bench, "two")
    made = plan(bench, turn_id)
    bench.store.reset(C)
    with pytest.raises(TurnNotForkable, match="reset, changed or forgotten"):
        copy_history(bench.store, bench.settings, made)
    with pytest.raises(TurnNotForkable, match="reset, changed or forgotten"):
        plan(bench, turn_id)


def test_a_place_that_has_moved_is_noticed(bench: Bench) -> None:
    run(bench, "one")
    run(bench, "two")
    cancelled = bench.enqueue(message="no")
    bench.store.cancel(cancelled)
    raw = dumps(bench.store.history(C)[0])
    message = StoredMessage(position=0, raw=raw, message=bench.store.history(C)[0])
    assert bench.store.conversations.remove(C, None, message, "op")
    with pytest.raises(TurnNotForkable):
        copy_history(bench.store, bench.settings, plan(bench, cancelled))


PICTURE = Attachment(kind=AttachmentKind.IMAGE, blob="f" * 64, size=3, media_type="image/png")
PIXELS = {"f" * 64: b"abc"}


def test_images_stay_with_another_text(bench: Bench) -> None:
    turn_id = bench.enqueue(message="look", attachments=(PICTURE,), blobs=PIXELS)
    message = UserMessage(content="look", attachments=(PICTURE,), turn_id=turn_id)
    reply = AssistantMessage(content="ok", turn_id=turn_id)
    bench.store.commit(
        bench.claim(turn_id).lease,
        replace(completed(turn_id), messages=[message, reply]),
    )
    forked = fork(bench, turn_id, message="look again")
    assert tuple(forked.attachments) == (PICTURE,)
    assert bench.store.blobs(forked.conversation_id, ["f" * 64]) == PIXELS
    later = run(bench, "and?")
    copy = fork(bench, later)
    assert bench.store.blobs(copy.conversation_id, ["f" * 64]) == PIXELS


def test_images_of_a_failed_turn_come_from_where_they_were_set_aside(bench: Bench) -> None:
    turn_id = bench.enqueue(
        message="look", attachments=(PICTURE,), blobs=PIXELS, on_failure=OnAbort.DROP
    )
    error = TurnError(code="internal", message="no")
    bench.store.commit(
        bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED, error=error, steps=0)
    )
    forked = fork(bench, turn_id)
    assert bench.store.blobs(forked.conversation_id, ["f" * 64]) == PIXELS


def test_images_that_are_gone_need_a_message_with_its_own(bench: Bench) -> None:
    turn_id = bench.enqueue(message="look", attachments=(PICTURE,), blobs=PIXELS)
    bench.store.cancel(turn_id)
    with pytest.raises(TurnNotForkable, match="images and files"):
        plan(bench, turn_id)
    assert fork(bench, turn_id, message=["never mind"]).input == "never mind"


def test_the_summary_goes_with_the_messages_that_it_covers(bench: Bench) -> None:
    run(bench, "one")
    second = run(bench, "two")
    assert bench.store.summarise(C, "short", generation=0, start=0, stop=2)
    forked = fork(bench, second)
    summary = bench.store.summary(forked.conversation_id)
    assert (summary.text, summary.covered, summary.total) == ("short", 2, 2)
    assert bench.store.summarise(C, "all", generation=0, start=2, stop=4)
    other = fork(bench, second, "other")
    assert bench.store.summary(other.conversation_id).text == ""


def test_the_labels_of_the_conversation_and_its_tenant_go_with_it(bench: Bench) -> None:
    turn_id = run(bench, "one", tenant_id="acme")
    bench.store.conversations.open(
        OpenConversation(
            conversation_id=C, tenant_id="acme", create=False, metadata={"topic": "shoes"}
        )
    )
    forked = fork(bench, turn_id)
    known = bench.store.conversations.find(forked.conversation_id, "acme")
    assert known is not None
    assert known.metadata == {"topic": "shoes"}
    assert bench.store.conversations.find(forked.conversation_id, "other") is None


def test_what_cannot_be_forked(bench: Bench) -> None:
    options = RequestOptions(store=False)
    unstored = run(bench, "one", options=options)
    with pytest.raises(TurnNotForkable, match="store=false"):
        plan(bench, unstored)
    with pytest.raises(TurnNotFound):
        plan(bench, create_turn_id(C))
    cancelled = bench.enqueue(message="x")
    claim = bench.claim(cancelled)
    call = ToolCall(id="a", name="look", arguments={})
    message = AssistantMessage(content="", tool_calls=(call,))
    bench.store.record(claim.lease, 0, ModelStep(message=message))
    result = ToolMessage(call_id="a", name="look", content="saw")
    bench.store.record(claim.lease, 1, ToolStep(message=result))
    bench.store.commit(claim.lease, Ending(status=TurnStatus.CANCELLED, steps=2))
    with pytest.raises(TurnNotForkable, match="not kept"):
        plan(bench, cancelled, step=2)
    assert fork(bench, cancelled).input == "x"


def test_ids_of_forks() -> None:
    assert fork_id(C, "a") == fork_id(C, "a") != fork_id(C, "b")
    longest = "x" * MAX_CONVERSATION_ID
    for source in (C, longest, fork_id(C, "a"), "gw:acme:conv_1"):
        made = fork_id(source, "a")
        assert partition_of(made) == partition_of(source)
        assert len(made) <= MAX_CONVERSATION_ID
        assert made.count("~") == 1
