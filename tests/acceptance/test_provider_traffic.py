"""Real worker processes share a provider's budget and what it asked of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import TurnStatus
from orchestrator import Orchestrator
from orchestrator.handle import TurnHandle
from orchestrator.stack import Stack
from tests.faults import a_minute_passes, paused, until

LIMIT = 5
TURNS = 12


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger") / "calls"


@pytest.fixture(scope="module")
def stack(ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.metered",),
        workers=2,
        flower=False,
        env={"METERED_LEDGER": str(ledger)},
        heartbeat=0.5,
        dispatch_grace=1,
        sweep_interval=0.2,
        provider_limits=f'{{"metered": {{"requests": {LIMIT}}}, "slowed": {{"requests": 100}}}}',
    ) as running:
        yield running


def statuses(turns: list[TurnHandle]) -> list[TurnStatus]:
    return sorted(turn.status() for turn in turns)


def ended_after_minutes(stack: Stack, turns: list[TurnHandle]) -> bool:
    """Whether all turns are done; if not, one more minute passes."""
    if set(statuses(turns)) == {TurnStatus.COMPLETED}:
        return True
    if TurnStatus.PARKED in statuses(turns):
        a_minute_passes(stack.redis_url)
    return False


def by(stack: Stack, turns: list[TurnHandle]) -> set[int]:
    """Which workers had a hand in the turns, by number."""
    names = [worker.name for worker in stack.workers]
    return {names.index((turn.info().worker or "").partition("@")[0]) for turn in turns}


def test_workers_share_a_budget(stack: Stack, orchestrator: Orchestrator, ledger: Path) -> None:
    with paused(stack.workers[0]):
        turns = [orchestrator.enqueue("metered", f"hi {n}") for n in range(3)]
        until(lambda: set(statuses(turns)) == {TurnStatus.COMPLETED}, 150, "three replies")
    assert by(stack, turns) == {1}
    with paused(stack.workers[1]):
        more = [orchestrator.enqueue("metered", f"hi {n}") for n in range(3, TURNS)]
        expected = [TurnStatus.COMPLETED] * (LIMIT - 3) + [TurnStatus.PARKED] * (TURNS - LIMIT)
        until(lambda: statuses(more) == expected, 150, "a full budget")
    assert by(stack, more) == {0}
    turns += more
    assert ledger.read_text().split().count("metered") == LIMIT
    assert {turn.info().failures for turn in turns} == {0}

    until(lambda: ended_after_minutes(stack, turns), 150, "the end of all turns")
    assert ledger.read_text().split().count("metered") == TURNS
    assert [turn.result().text for turn in turns] == [f"You said: hi {n}" for n in range(TURNS)]


def test_what_was_asked_of_one_worker_holds_all(
    stack: Stack, orchestrator: Orchestrator, ledger: Path
) -> None:
    with paused(stack.workers[0]):
        first = orchestrator.enqueue("slowed", "hi")
        until(lambda: first.status() is TurnStatus.PARKED, 150, "a turn that parks")
    assert by(stack, [first]) == {1}
    with paused(stack.workers[1]):
        turns = [orchestrator.enqueue("slowed", f"hi {n}") for n in range(4)]
        until(lambda: set(statuses(turns)) == {TurnStatus.PARKED}, 150, "a hold of all")
        other = orchestrator.enqueue("patient", "and you?")
        assert other.result(150).text == "You said: and you?"
    assert by(stack, [*turns, other]) == {0}
    turns.append(first)
    assert ledger.read_text().split().count("slowed") == 1
    assert sorted(turn.info().failures for turn in turns) == [0, 0, 0, 0, 1]

    until(lambda: ended_after_minutes(stack, turns), 150, "the end of all turns")
    assert ledger.read_text().split().count("slowed") == 1 + len(turns)
