"""Summaries, totals and calibration of a conversation, on both stores."""

from __future__ import annotations

import pytest

from agentapi.conversation.compaction import Summary
from agentapi.stores import Ending
from agentapi.turns import TurnError, TurnStatus
from agentapi.turns.budget import Limits, Spent
from tests.conformance.stores import Bench, C, completed


def talk(bench: Bench, turns: int = 2) -> None:
    for number in range(turns):
        bench.complete(bench.claim(bench.enqueue()).lease, f"said {number}")


def test_a_summary_comes_with_the_claim_and_deletes_nothing(bench: Bench) -> None:
    talk(bench)
    assert bench.store.summary(C) == Summary(total=4)
    for _ in range(2):
        assert bench.store.summarise(C, "short", generation=0, start=0, stop=2)
    summary = Summary(text="short", covered=2, total=4)
    assert bench.store.summary(C) == summary
    claim = bench.claim(bench.enqueue())
    assert claim.summary == summary
    assert len(claim.history) == 4
    assert [message.content for message in bench.store.slice(C, 1, 2)] == ["yo", "said 1"]


def test_a_summary_stands_on_the_one_before(bench: Bench) -> None:
    talk(bench, 3)
    assert bench.store.summarise(C, "one", generation=0, start=0, stop=2)
    assert not bench.store.summarise(C, "late", generation=0, start=0, stop=4)
    assert bench.store.summarise(C, "two", generation=0, start=2, stop=4)
    assert bench.store.summary(C).text == "two"


def test_a_summary_of_what_was_reset_is_refused(bench: Bench) -> None:
    talk(bench)
    bench.store.summarise(C, "old", generation=0, start=0, stop=2)
    bench.store.reset(C)
    assert bench.store.summary(C) == Summary()
    assert not bench.store.summarise(C, "older", generation=0, start=0, stop=2)
    assert not bench.store.summarise("nobody", "x", generation=0, start=0, stop=2)


def test_totals_grow_with_each_turn_and_count_no_step_twice(bench: Bench) -> None:
    spent = Spent(steps=2, tokens=30, cost=0.25)
    first = bench.enqueue()
    error = TurnError(code="provider", message="no")
    failed = Ending(status=TurnStatus.FAILED, error=error, spent=spent)
    bench.store.commit(bench.claim(first).lease, failed)
    bench.store.retry(first, "again")
    claim = bench.claim(first)
    assert claim.spent == spent
    more = Spent(steps=3, tokens=45, cost=0.5)
    ending = completed(first)
    for _ in range(2):
        bench.store.commit(
            claim.lease,
            Ending(status=ending.status, messages=ending.messages, spent=more, calibration=1.5),
        )
    claim = bench.claim(bench.enqueue())
    assert claim.spent == more
    assert claim.calibration == 1.5


def test_a_turn_that_runs_while_its_conversation_is_reset_counts_no_more(bench: Bench) -> None:
    claim = bench.claim(bench.enqueue())
    bench.store.reset(C)
    spent = Spent(steps=2, tokens=30, cost=0.25)
    bench.store.commit(claim.lease, Ending(status=TurnStatus.COMPLETED, spent=spent))
    assert bench.claim(bench.enqueue()).spent == Spent()


def test_a_budget_comes_with_the_turn(bench: Bench) -> None:
    budget = Limits(tokens=7, cost=0.5)
    assert bench.claim(bench.enqueue(budget=budget)).turn.budget == budget
    assert bench.store.turn(bench.enqueue("other")).budget is None


@pytest.mark.parametrize("cost", [0.1, 1e-7])
def test_small_costs_add_up(bench: Bench, cost: float) -> None:
    for _ in range(3):
        ending = Ending(status=TurnStatus.COMPLETED, spent=Spent(cost=cost))
        bench.store.commit(bench.claim(bench.enqueue()).lease, ending)
    assert bench.claim(bench.enqueue()).spent.cost == pytest.approx(3 * cost)
