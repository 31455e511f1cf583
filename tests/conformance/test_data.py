"""Conversations copied out and brought back, and a person's data deleted, on both stores."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    Message,
    UserMessage,
)
from agentapi.errors import InvalidInput, TurnNotFound
from agentapi.stores import ConversationQuery, Ending, OpenConversation
from agentapi.stores.data import Whose
from agentapi.turns import OnAbort, TurnStatus
from orchestrator.data.exporting import Export, count, export_of
from orchestrator.data.forgetting import Forgetting, ForgottenUser, count_user
from orchestrator.data.importing import Import, ImportResult
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C

ANNA = Whose(user_id="anna")
PICTURE = b"bytes of a picture"
NAME = hashlib.sha256(PICTURE).hexdigest()


def run(
    bench: Bench, said: str, user: str | None = None, conversation: str = C, **more: Any
) -> str:
    turn_id = bench.enqueue(conversation, said, user_id=user, **more)
    bench.complete(bench.claim(turn_id, conversation).lease, said, f"re: {said}")
    return turn_id


def with_picture(bench: Bench, user: str | None = None, conversation: str = C) -> str:
    attached = (
        Attachment(kind=AttachmentKind.IMAGE, blob=NAME, size=len(PICTURE), media_type="image/png"),
    )
    turn_id = bench.enqueue(
        conversation, "look", user_id=user, attachments=attached, blobs={NAME: PICTURE}
    )
    said = UserMessage(content="look", attachments=attached, turn_id=turn_id)
    reply = AssistantMessage(content="nice", turn_id=turn_id)
    ending = Ending(status=TurnStatus.COMPLETED, messages=[said, reply], steps=1)
    bench.store.commit(bench.claim(turn_id, conversation).lease, ending)
    return turn_id


def exported(bench: Bench, conversation: str | None = None, **whose: str) -> list[bytes]:
    return list(export_of(bench.store, conversation, Whose(**whose)).lines())


def imported(bench: Bench, lines: list[bytes], **options: bool) -> ImportResult:
    importing = Import(bench.store, **{"replace": False, "dry_run": False, **options})
    for _ in importing.run(lines):
        pass
    return importing.result


def forget(bench: Bench, whose: Whose = ANNA, wait: float = 0) -> ForgottenUser:
    return Forgetting(bench.store, whose, bench.store.cancel, wait).run()


def types(lines: list[bytes]) -> list[str]:
    return [orjson.loads(line)["type"] for line in lines]


def test_a_conversation_comes_back_as_it_was(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.store.conversations.open(
        OpenConversation(
            conversation_id=C,
            tenant_id="acme",
            create=True,
            user_id="anna",
            metadata={"topic": "shoes"},
        )
    )
    for number in range(150):
        bench.store.conversations.open(
            OpenConversation(
                conversation_id=C,
                tenant_id="acme",
                create=False,
                operation=f"op {number}",
                messages=[UserMessage(content=f"message {number}")],
            )
        )
    assert bench.store.summarise(C, "about shoes", generation=0, start=0, stop=3)
    history = bench.store.history(C)
    lines = exported(bench)
    found = count(bench.store, [C, "nobody"])
    assert (found.conversations, found.messages) == (1, 150)
    bench.store.conversations.drop(C, "acme", "op")
    assert bench.store.history(C) == []

    assert imported(bench, lines, dry_run=True).imported == 1
    assert bench.store.history(C) == []
    result = imported(bench, lines)
    assert (result.imported, result.messages, result.complete) == (1, 150, True)
    assert bench.store.history(C) == history
    summary = bench.store.summary(C)
    assert (summary.text, summary.covered, summary.total) == ("about shoes", 3, 150)
    known = bench.store.conversations.find(C, "acme")
    assert known is not None
    assert known.metadata == {"topic": "shoes"}
    assert bench.store.conversations.find(C, None) is None
    listed = bench.store.lists.conversations(ConversationQuery(), 10).items
    assert [c.user_id for c in listed] == ["anna"]


def test_images_come_back_once(bench: Bench) -> None:
    with_picture(bench)
    with_picture(bench)
    lines = exported(bench, C)
    assert types(lines).count("blob") == 1
    forget_all(bench)
    assert bench.store.blobs(C, [NAME]) == {}
    assert imported(bench, lines).imported == 1
    assert bench.store.blobs(C, [NAME]) == {NAME: PICTURE}
    assert list(bench.claim(bench.enqueue()).history) == bench.store.history(C)


def forget_all(bench: Bench) -> None:
    forget(bench, Whose(user_id=""))


def test_an_import_can_be_repeated_and_replaces_nothing_unasked(bench: Bench) -> None:
    run(bench, "one")
    lines = exported(bench, C)
    assert imported(bench, lines, dry_run=True).refused.keys() == {C}
    assert imported(bench, lines).refused.keys() == {C}
    assert imported(bench, lines, replace=True).imported == 1
    assert imported(bench, lines, dry_run=True).unchanged == 1
    # What came since stays, however often the same export is imported.
    run(bench, "two")
    for replace in (False, True):
        assert imported(bench, lines, replace=replace).unchanged == 1
    assert [m.content for m in bench.store.history(C)] == ["one", "re: one", "two", "re: two"]


def test_a_turn_that_was_accepted_wins(bench: Bench) -> None:
    run(bench, "one")
    lines = exported(bench, C)
    lease = bench.claim(bench.enqueue(C, "two")).lease
    result = imported(bench, lines, replace=True)
    assert "unfinished turns" in result.refused[C]
    bench.complete(lease, "two")
    assert len(bench.store.history(C)) == 4
    assert imported(bench, lines, replace=True).imported == 1
    assert len(bench.store.history(C)) == 2


def test_turns_of_a_replaced_conversation_keep_their_results(bench: Bench) -> None:
    first = run(bench, "one")
    lines = exported(bench, C)
    second = run(bench, "two")
    assert imported(bench, lines, replace=True).imported == 1
    for turn_id, said in ((first, "one"), (second, "two")):
        assert bench.store.turn(turn_id).text == f"re: {said}"
    third = run(bench, "three")
    assert bench.store.turn(third).text == "re: three"


def test_an_import_that_dies_in_the_middle_leaves_nothing(bench: Bench) -> None:
    for number in range(300):
        run(bench, f"message {number}")
    run(bench, "other", conversation="other")
    lines = exported(bench)
    history = bench.store.history(C)
    forget_all(bench)

    def dies() -> Iterator[bytes]:
        yield from lines[: types(lines).index("end") - 1]
        raise KeyboardInterrupt

    importing = Import(bench.store, replace=False, dry_run=False)
    with pytest.raises(KeyboardInterrupt):
        list(importing.run(dies()))
    assert importing.result.imported == 0
    assert not importing.result.complete
    assert bench.store.history(C) == []
    assert imported(bench, lines).imported == 2
    assert bench.store.history(C) == history


def test_an_export_has_whole_turns_however_it_changes_meanwhile(bench: Bench) -> None:
    failed = bench.enqueue(C, "bad", on_failure=OnAbort.KEEP)
    said: list[Message] = [
        UserMessage(content="bad", turn_id=failed),
        AssistantMessage(content="", turn_id=failed),
    ]
    lease = bench.claim(failed).lease
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, messages=said, steps=0))
    for number in range(100):
        run(bench, f"message {number}")
    lines = []
    for line in Export(bench.store, [C]).lines():
        lines.append(line)
        if len(lines) == 20:
            # A turn comes, and the failed one's messages are taken out of the history.
            run(bench, "later")
            bench.store.retry(failed, "op")
    assert types(lines).count("restart") == 1
    history = bench.store.history(C)
    bench.store.cancel(failed)
    forget_all(bench)
    assert imported(bench, lines).imported == 1
    assert bench.store.history(C) == history


def test_filters_choose_what_is_exported(bench: Bench) -> None:
    run(bench, "a", "anna", "one")
    run(bench, "b", "bob", "two", tenant_id="acme")
    run(bench, "c", None, "three")

    def names(**whose: str) -> set[str]:
        found = map(orjson.loads, exported(bench, **whose))
        return {line["conversation_id"] for line in found if line["type"] == "conversation"}

    assert names() == {"one", "two", "three"}
    assert names(user_id="anna") == {"one"}
    assert names(tenant_id="acme") == {"two"}
    assert names(tenant_id="") == {"one", "three"}
    assert names(tenant_id="acme", user_id="anna") == set()
    with pytest.raises(InvalidInput, match="not both"):
        exported(bench, "one", user_id="anna")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[1:], "header"),
        (lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]], "version 2"),
        (lambda lines: [lines[0], b"{}\n"], "line 2"),
        (lambda lines: [lines[0], *lines[2:]], "belongs to no conversation"),
        (lambda lines: [*lines[:2], *lines[3:]], "has 1 messages"),
        (lambda lines: [line.replace(b'"role":"user"', b'"role":"x"') for line in lines], "line 3"),
        (lambda lines: [line.replace(NAME.encode(), b"0" * 64) for line in lines], "bytes"),
    ],
)
def test_a_broken_export_is_refused(bench: Bench, change: Any, says: str) -> None:
    with_picture(bench)
    lines = exported(bench, C)
    forget_all(bench)
    with pytest.raises(InvalidInput, match=says):
        imported(bench, change(lines))
    assert bench.store.history(C) == []
    assert not imported(bench, lines[:-1]).complete


def test_a_person_is_forgotten_and_nobody_else(bench: Bench) -> None:
    mine = [run(bench, f"mine {n}", "anna", "mine") for n in range(3)]
    mine.append(run(bench, "bob's in anna's", "bob", "mine"))
    cancelled = bench.enqueue("mine", "stop", user_id="anna")
    bench.store.cancel(cancelled)
    run(bench, "bob's", "bob", "bobs")
    guest = run(bench, "anna's in bob's", "anna", "bobs")
    last = run(bench, "bob's again", "bob", "bobs")
    assert bench.store.summarise("bobs", "anna said", generation=0, start=0, stop=4)
    kept = run(bench, "for a tenant", "anna", "acmes", tenant_id="acme")

    wanted = Whose(user_id="anna", tenant_id="")
    found = count_user(bench.store, wanted)
    assert (found.conversations, found.messages, found.turns, found.dry_run) == (1, 10, 6, True)
    result = forget(bench, wanted)
    assert (result.conversations, result.messages, result.turns) == (1, 10, 6)
    assert result.left == []
    for turn_id in [*mine, cancelled, guest]:
        with pytest.raises(TurnNotFound):
            bench.store.turn(turn_id)
    assert bench.store.history("mine") == []
    assert bench.store.conversations.find("mine", None) is None
    history = [message.content for message in bench.store.history("bobs")]
    assert history == ["bob's", "re: bob's", "bob's again", "re: bob's again"]
    assert bench.store.summary("bobs").text == ""
    assert bench.store.turn(last).text == "re: bob's again"
    assert bench.store.turn(kept).text == "re: for a tenant"
    ends = bench.store.lists.ends("start", 100).ends
    assert [end.tenant_id for end in ends if end.user_id == "anna"] == ["acme"]
    again = forget(bench, wanted)
    assert (again.conversations, again.messages, again.turns) == (0, 0, 0)


def test_images_of_a_forgotten_guest_go_unless_others_have_them(bench: Bench) -> None:
    run(bench, "bob's", "bob")
    with_picture(bench, "anna")
    with_picture(bench, "bob")
    forget(bench)
    assert bench.store.blobs(C, [NAME]) == {NAME: PICTURE}
    forget(bench, Whose(user_id="bob"))
    assert bench.store.blobs(C, [NAME]) == {}


def test_a_turn_that_runs_is_cancelled_and_named(bench: Bench) -> None:
    waiting = run(bench, "one", "anna")
    running = bench.enqueue(C, "two", user_id="anna")
    lease = bench.claim(running).lease
    result = forget(bench)
    assert list(result.left) == [running]
    assert bench.store.turn(running).cancel_requested
    bench.store.commit(lease, Ending(status=TurnStatus.CANCELLED, messages=[], steps=0))
    again = forget(bench)
    assert list(again.left) == []
    for turn_id in (waiting, running):
        with pytest.raises(TurnNotFound):
            bench.store.turn(turn_id)
    assert bench.store.history(C) == []


class Dies(BaseException):
    """The process that deletes dies."""


@pytest.mark.parametrize("step", range(1, 8))
def test_a_deletion_that_dies_in_the_middle_is_repeated(
    bench: Bench, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [run(bench, f"mine {n}", "anna", f"mine {n % 2}") for n in range(4)]
    turns.append(run(bench, "bob's in anna's", "bob", "mine 0"))
    kept = run(bench, "bob's", "bob", "bobs")
    turns.append(run(bench, "anna's in bob's", "anna", "bobs"))
    calls = 0

    def dying(method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                raise Dies
            return method(*args, **options)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(Dies):
        for store, name in (
            (bench.store.conversations, "drop"),
            (bench.store.conversations, "wipe"),
            (bench.store.data, "erase"),
            (bench.store.data, "erase_ends"),
        ):
            patch.setattr(store, name, dying(getattr(store, name)))
        forget(bench)
    assert not forget(bench).left
    for turn_id in turns:
        with pytest.raises(TurnNotFound):
            bench.store.turn(turn_id)
    assert list(bench.store.data.remains()) == []
    assert [m.content for m in bench.store.history("bobs")] == ["bob's", "re: bob's"]
    assert bench.store.turn(kept).text == "re: bob's"
    ends = bench.store.lists.ends("start", 100).ends
    assert "anna" not in {end.user_id for end in ends}


def test_a_guest_is_forgotten_before_a_reset_too(bench: Bench) -> None:
    run(bench, "bob's", "bob")
    guest = run(bench, "anna's", "anna")
    other = run(bench, "bob's again", "bob")
    bench.store.reset(C)
    found, result = count_user(bench.store, ANNA), forget(bench)
    assert (found.messages, found.turns) == (result.messages, result.turns) == (2, 1)
    with pytest.raises(TurnNotFound):
        bench.store.turn(guest)
    assert bench.store.turn(other).text == "re: bob's again"


def test_erasing_is_repeated_safely(bench: Bench) -> None:
    run(bench, "bob's", "bob")
    run(bench, "anna's", "anna")
    [turn] = bench.store.data.turns(ANNA)
    assert [bench.store.data.erase(turn, "op") for _ in range(2)] == [2, 2]
    assert bench.store.data.erase(turn, "another") == 0
