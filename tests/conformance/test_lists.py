"""Lists of turns, conversations and approvals: filters, pages, what is absent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from agentapi.conversation.messages import UserMessage
from agentapi.errors import ConfigurationError, InvalidInput
from agentapi.stores import (
    FROM_START,
    ConversationQuery,
    ConversationSummary,
    Ending,
    OpenConversation,
    TurnCount,
    TurnQuery,
    TurnSummary,
)
from agentapi.turns import (
    Decision,
    HeldCalls,
    OnBusy,
    Question,
    TurnError,
    TurnKind,
    TurnStatus,
    Verdict,
)
from agentapi.turns.request_options import RequestOptions
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, beside

A_DAY = 86_400.0


def pages(bench: Bench, limit: int = 1000, **filters: Any) -> Iterator[list[TurnSummary]]:
    cursor: str | None = None
    while True:
        page = bench.store.lists.turns(TurnQuery(**filters), limit, cursor)
        yield list(page.items)
        cursor = page.cursor
        if cursor is None:
            return


def listed(bench: Bench, limit: int = 1000, **filters: Any) -> list[str]:
    return [turn.turn_id for page in pages(bench, limit, **filters) for turn in page]


def conversations(bench: Bench, limit: int = 1000, **filters: Any) -> list[ConversationSummary]:
    found: list[ConversationSummary] = []
    cursor: str | None = None
    while True:
        page = bench.store.lists.conversations(ConversationQuery(**filters), limit, cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


def fail(bench: Bench, conversation: str, code: str = "broken", text: str = "it broke") -> str:
    turn_id = bench.enqueue(conversation)
    error = TurnError(code=code, message=text)
    lease = bench.claim(turn_id, conversation).lease
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, error=error))
    return turn_id


def statuses(*names: str) -> frozenset[TurnStatus]:
    return frozenset(map(TurnStatus, names))


def test_a_turn_is_listed_by_its_status_at_every_point(bench: Bench) -> None:
    def where() -> set[str]:
        found = {s.value for s in TurnStatus if listed(bench, statuses=frozenset({s}))}
        assert len(listed(bench)) == 1
        return found

    turn_id = bench.enqueue()
    assert where() == {"queued"}
    lease = bench.claim(turn_id).lease
    assert where() == {"running"}
    bench.store.release(lease)
    assert where() == {"queued"}
    lease = bench.claim(turn_id).lease
    bench.store.park(lease, 0.0, failures=1, steps=0, reason="provider")
    assert where() == {"parked"}
    time.sleep(0.002)
    lease = bench.claim(turn_id).lease
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED))
    assert where() == {"failed"}
    bench.store.retry(turn_id, "again")
    assert where() == {"queued"}
    bench.complete(bench.claim(turn_id).lease)
    assert where() == {"completed"}


def test_a_summary_says_everything_but_what_was_said(bench: Bench) -> None:
    before = time.time()
    turn_id = bench.enqueue("c", "secret words", user_id="ann", tenant_id="acme", parent_id="p")
    lease = bench.claim(turn_id, "c", owner="w1").lease
    bench.store.cancel(turn_id)
    [turn] = next(pages(bench))
    assert turn == TurnSummary(
        turn_id=turn_id,
        conversation_id="c",
        agent="a",
        kind=TurnKind.AGENT,
        user_id="ann",
        tenant_id="acme",
        status=TurnStatus.RUNNING,
        created_at=turn.created_at,
        started_at=turn.started_at,
        attempt=1,
        worker="w1",
        cancel_requested=True,
        parent_id="p",
    )
    error = TurnError(code="broken", message="it broke")
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, steps=3, error=error))
    [turn] = next(pages(bench))
    assert (turn.status, turn.error, turn.steps) == (TurnStatus.FAILED, error, 3)
    assert turn.started_at is not None
    assert turn.ended_at is not None
    assert before - 1 < turn.created_at <= turn.started_at <= turn.ended_at < before + 60
    assert "secret" not in repr(turn)


def test_each_filter(bench: Bench) -> None:
    plain = bench.enqueue("one")
    other = bench.enqueue("two", user_id="ann", tenant_id="acme")
    slow = fail(bench, "three", "provider_unavailable", 'The Provider said: "Too slow" Ünder load')
    bad = fail(bench, "four")
    assert listed(bench, tenant_id="acme") == [other]
    assert set(listed(bench, tenant_id="")) == {plain, slow, bad}
    assert listed(bench, user_id="ann") == [other]
    assert listed(bench, user_id="bob") == []
    assert listed(bench, agent="b") == []
    assert len(listed(bench, agent="a")) == 4
    assert listed(bench, conversation_id="one") == [plain]
    assert listed(bench, conversation_id="none") == []
    assert listed(bench, error_code="broken") == [bad]
    for part in ("provider SAID", '"too slow"', "Ünder", "unavailable"):
        assert listed(bench, error=part) == [slow], part
    assert set(listed(bench, error="")) == {plain, other, slow, bad}
    assert listed(bench, statuses=statuses("failed"), error="nothing like it") == []
    assert listed(bench, statuses=frozenset()) == []


def test_ages(bench: Bench) -> None:
    first = bench.enqueue("one")
    [[at]] = [[turn.created_at for turn in page] for page in pages(bench)]
    while time.time() <= at + 0.003:
        time.sleep(0.001)
    second = bench.enqueue("two")
    assert listed(bench, until=at) == [first]
    assert listed(bench, since=at + 0.002) == [second]
    assert listed(bench) == [second, first]
    assert listed(bench, since=at, until=at) == [first]
    assert listed(bench, since=time.time() + A_DAY) == []
    assert listed(bench, 1, until=at) == [first]


def test_pages_have_every_turn_once_and_the_newest_first(bench: Bench) -> None:
    accepted = [bench.enqueue(f"c:{number}") for number in range(300)]
    for limit in (7, 100, 299, 300, 301):
        found = [turn for page in pages(bench, limit) for turn in page]
        assert sorted(turn.turn_id for turn in found) == sorted(accepted)
        at = [round(turn.created_at * 1000) for turn in found]
        assert at == sorted(at, reverse=True)


def test_many_turns_of_one_moment_in_one_partition(make_bench: MakeBench) -> None:
    bench = make_bench(inbox_limit=1000)
    accepted = [bench.enqueue("c") for _ in range(200)]
    assert sorted(listed(bench, 3)) == sorted(accepted)
    assert sorted(listed(bench, 3, conversation_id="c")) == sorted(accepted)


def test_turns_that_move_while_pages_are_read_are_neither_missed_nor_doubled(bench: Bench) -> None:
    accepted = [bench.enqueue(f"c:{number}") for number in range(60)]
    seen: list[str] = []
    for number, page in enumerate(pages(bench, 5)):
        seen += [turn.turn_id for turn in page]
        bench.enqueue(f"late:{number}")
        bench.complete(bench.claim(accepted[number], f"c:{number}").lease)
        bench.store.cancel(accepted[59 - number])
    assert len(seen) == len(set(seen))
    assert set(accepted) <= set(seen)


def test_what_is_forgotten_or_lost_is_absent(bench: Bench) -> None:
    kept, lost, forgotten, merged = (bench.enqueue(f"c:{n}") for n in range(4))
    bench.enqueue("c:3", on_busy=OnBusy.MERGE)
    bench.lose(lost)
    bench.complete(bench.claim(forgotten, "c:2").lease)
    bench.store.conversations.forget("c:2", forgotten, "op")
    assert set(listed(bench)) == {kept, merged}
    assert set(listed(bench)) == {kept, merged}


def test_a_turn_that_is_not_to_be_stored_leaves_the_lists(bench: Bench) -> None:
    unstored = RequestOptions(store=False)
    done = bench.enqueue("one", options=unstored)
    failed = bench.enqueue("two", options=unstored)
    assert set(listed(bench)) == {done, failed}
    bench.complete(bench.claim(done, "one").lease)
    lease = bench.claim(failed, "two").lease
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED))
    # It may still be retried.
    assert listed(bench) == [failed]
    bench.store.retry(failed, "op")
    bench.complete(bench.claim(failed, "two").lease)
    assert listed(bench) == []
    ends = bench.store.lists.ends(FROM_START, 10).ends
    assert sorted(end.turn_id for end in ends) == sorted([done, failed, failed])


def test_a_limit_or_a_cursor_that_is_not_valid(bench: Bench) -> None:
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidInput, match="limit"):
            bench.store.lists.turns(TurnQuery(), limit)
    for cursor in ("x", "", "é", "W10", "AA=="):
        with pytest.raises(InvalidInput, match="cursor"):
            bench.store.lists.turns(TurnQuery(), 1, cursor)
    for position in ("x", "", "é"):
        with pytest.raises(InvalidInput, match="position"):
            bench.store.lists.ends(position, 1)


def test_counts_of_turns_by_when_they_were_accepted(bench: Bench) -> None:
    began = time.time()
    bench.complete(bench.claim(bench.enqueue("done"), "done").lease)
    lease = bench.claim(bench.enqueue("fails"), "fails").lease
    failed = TurnError(code="boom", message="it broke")
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, error=failed))
    bench.claim(bench.enqueue("runs"), "runs")
    bench.enqueue("waits")
    spans = [began - 7200, began - 60, began + 60, began + 7200]
    nothing, now = TurnCount(), TurnCount(accepted=4, failed=1)
    assert list(bench.store.lists.counts(spans)) == [nothing, now, nothing]
    # Each turn is counted once, whatever the spans are.
    many = [began - 60 + number for number in range(121)]
    counts = bench.store.lists.counts(many)
    assert (len(counts), sum(each.accepted for each in counts)) == (120, 4)
    assert list(bench.store.lists.counts([began])) == []
    assert list(bench.store.lists.counts([])) == []


def test_lists_that_are_off(make_bench: MakeBench) -> None:
    bench = make_bench(list_limit=0)
    bench.complete(bench.claim(bench.enqueue()).lease)
    for call in (
        lambda: bench.store.lists.turns(TurnQuery(), 1),
        lambda: bench.store.lists.conversations(ConversationQuery(), 1),
        lambda: bench.store.lists.approvals(TurnQuery(), 1),
        lambda: bench.store.lists.ends(None, 1),
        lambda: bench.store.lists.counts([0.0, 1.0]),
    ):
        with pytest.raises(ConfigurationError, match="AGENTAPI_LIST_LIMIT"):
            call()


def test_conversations(bench: Bench) -> None:
    began = time.time()
    bench.store.conversations.open(
        OpenConversation(
            conversation_id="opened",
            tenant_id="acme",
            create=True,
            user_id="ann",
            metadata={"topic": "orders"},
            operation="op",
            messages=[UserMessage(content="hi")],
        )
    )
    bench.complete(bench.claim(bench.enqueue("one"), "one").lease)
    bench.enqueue("one")
    found = {each.conversation_id: each for each in conversations(bench)}
    assert set(found) == {"opened", "one"}
    opened, one = found["opened"], found["one"]
    assert (opened.agent, opened.user_id, opened.tenant_id) == (None, "ann", "acme")
    assert (opened.messages, opened.turns, opened.open_turns) == (1, 0, 0)
    assert dict(opened.metadata) == {"topic": "orders"}
    assert (one.agent, one.messages, one.turns, one.open_turns) == ("a", 2, 1, 1)
    assert began - 1 < one.created_at <= one.updated_at < began + 60

    def ids(**filters: Any) -> set[str]:
        return {each.conversation_id for each in conversations(bench, **filters)}

    assert ids(busy=True) == {"one"}
    assert ids(busy=False) == {"opened"}
    assert ids(tenant_id="acme") == ids(user_id="ann") == {"opened"}
    assert ids(tenant_id="") == ids(agent="a") == {"one"}
    assert ids(active_since=began + A_DAY) == ids(idle_since=began - A_DAY) == set()
    assert ids(active_since=began - 1, idle_since=began + 60) == {"one", "opened"}
    assert ids(since=began + A_DAY) == ids(until=began - A_DAY) == set()


def test_pages_of_conversations(bench: Bench) -> None:
    names = [f"c:{number}" for number in range(100)] + ["é:ü", beside("c:1")]
    for name in names:
        bench.enqueue(name)
    found = [each.conversation_id for each in conversations(bench, 7)]
    assert sorted(found) == sorted(names)


def test_a_conversation_that_was_dropped_or_forgotten_is_absent(bench: Bench) -> None:
    for name in ("dropped", "forgotten", "kept"):
        bench.complete(bench.claim(bench.enqueue(name), name).lease)
    bench.store.conversations.drop("dropped", None, "op")
    bench.forget("forgotten")
    assert [each.conversation_id for each in conversations(bench)] == ["kept"]
    bench.enqueue("forgotten")
    assert {each.conversation_id for each in conversations(bench)} == {"kept", "forgotten"}


def test_approvals_of_all_conversations(bench: Bench) -> None:
    def ask(conversation: str, calls: str, **more: Any) -> str:
        turn_id = bench.enqueue(conversation, **more)
        questions = [Question(call_id=c, tool="pay", arguments={"sum": 7}) for c in calls]
        lease = bench.claim(turn_id, conversation).lease
        bench.store.calls.suspend(lease, HeldCalls(questions=questions))
        return turn_id

    bench.enqueue("waits for nothing")
    first, second = ask("one", "qr"), ask("two", "s", tenant_id="acme", user_id="ann")
    ended = ask("three", "t")
    bench.store.cancel(ended)

    def asked(**filters: Any) -> list[tuple[str, str]]:
        page = bench.store.lists.approvals(TurnQuery(**filters), 100)
        assert page.cursor is None
        return sorted((call.turn_id, call.call_id) for call in page.items)

    assert asked() == sorted([(first, "q"), (first, "r"), (second, "s")])
    assert asked(tenant_id="acme") == asked(user_id="ann") == [(second, "s")]
    bench.store.calls.decide(first, "q", Decision(verdict=Verdict.APPROVED))
    assert asked() == sorted([(first, "r"), (second, "s")])
    [call, *_] = bench.store.lists.approvals(TurnQuery(tenant_id="acme"), 100).items
    assert (call.tool, call.arguments, call.agent) == ("pay", {"sum": 7}, "a")
