"""The bounded run of CI: a sample of all faults, and some pairs. `make faults` has them all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_

import pytest

from tests.faultpoints.cell import Planned
from tests.faultpoints.effects import Effect
from tests.faultpoints.matrix import report
from tests.faultpoints.plans import SCENARIOS, pairs, sample, singles, triggered
from tests.faultpoints.reach import SOMETIMES, UNREACHED, points_of_a_worker
from tests.faultpoints.runner import Runner

pytestmark = pytest.mark.timeout(900)

EVERY_SECOND = (
    *("liveness", "Runtime._probes", "step agentapi-loop"),
    *("agentapi.checks.", "self_check."),
)
"""Parts of the names of points that a worker passes by the clock: it may stop before it does."""

ARCHIVE = tuple(f"script {name}" for name in ("pack", "depart", "arrive", "leftovers"))
ARCHIVE_OF_TURNS = tuple(
    f"script {name}" for name in ("pack_turns", "depart_turns", "arrive_turn", "expel_turns")
)
"""Points that only workers with an archive pass."""

SEED = int(os.environ.get("FAULTS_SEED", "1"))


@dataclass(frozen=True)
class Trace:
    """How often each process passes each point in a scenario without faults.

    Attributes:
        most: In the run that passed it most often.
        least: In the run that passed it least often. Some points are passed only now and then,
            such as those of the checks at a worker's start: no fault in them can be relied on.
    """

    most: Mapping[str, Counter[str]]
    least: Mapping[str, Counter[str]]


Traces = Mapping[str, Trace]


@pytest.fixture(scope="module")
def traces(runner: Runner) -> Traces:
    """Those of all scenarios."""
    found = {}
    for scenario in SCENARIOS:
        most, results = runner.trace(scenario)
        assert not list(report([r for r in results if r.broken]))
        least = {role: reduce(and_, (r.passed[role] for r in results)) for role in most}
        found[scenario] = Trace(most, least)
    return found


def test_every_point_of_a_workers_way_is_passed(traces: Traces) -> None:
    passed = {point for trace in traces.values() for point in trace.most.get("worker", ())}
    missing = points_of_a_worker() - passed - {*UNREACHED, *SOMETIMES}
    assert not missing, "have a scenario pass them, or say in `UNREACHED` why none can"
    stale = set(UNREACHED) - (points_of_a_worker() - passed)
    assert not stale, "they are passed, or gone: strike them from `UNREACHED`"


def _plans(traces: Traces, *, kills: bool, scenario: str, occurrences: int = 1) -> list[Planned]:
    return [
        plan
        for role, passed in traces[scenario].least.items()
        for plan in singles(scenario, role, passed, occurrences)
        if plan.faults[0].effect.kills is kills
    ]


def _kept(runner: Runner, plans: list[Planned]) -> None:
    results = runner.run(plans)
    broken = [result for result in results if result.broken]
    assert not broken, "\n".join(["", *report(broken)])
    missed = [str(result.planned) for result in results if not result.fired]
    assert len(missed) < len(plans) * 0.2, "\n".join(["these faults did not happen:", *missed])


def test_errors_hangs_and_lost_answers(runner: Runner, traces: Traces) -> None:
    plans = _plans(traces, kills=False, scenario="turn")
    _kept(runner, sample(plans, 110, SEED))


def test_kills(runner: Runner, traces: Traces) -> None:
    _kept(runner, sample(_plans(traces, kills=True, scenario="turn"), 10, SEED))


def test_faults_while_a_worker_stops(runner: Runner, traces: Traces) -> None:
    known = {role: set(passed) for role, passed in traces["turn"].most.items()}
    plans = [
        plan
        for plan in _plans(traces, kills=False, scenario="stop")
        if plan.faults[0].point not in known[plan.role]
        and not any(part in plan.faults[0].point for part in EVERY_SECOND)
    ]
    _kept(runner, sample(plans, 8, SEED))


def test_faults_of_the_gateway(runner: Runner, traces: Traces) -> None:
    _kept(runner, sample(_plans(traces, kills=False, scenario="gateway"), 24, SEED))


def test_faults_between_redis_and_the_archive(runner: Runner, traces: Traces) -> None:
    passed = traces["archive"].least["worker"]
    moves = {point: passed[point] for point in (*ARCHIVE, *ARCHIVE_OF_TURNS)}
    assert all(moves.values())
    # Deaths take long: they are those after which something might be lost.
    deaths = (*ARCHIVE, "script depart_turns")
    plans = [
        plan
        for plan in singles("archive", "worker", moves, 1)
        for fault in plan.faults
        if fault.effect in (Effect.LOST_ANSWER, Effect.EXCEPTION)
        or (fault.effect is Effect.KILL_AFTER and fault.point in deaths)
    ]
    _kept(runner, plans)


def test_pairs(runner: Runner, traces: Traces) -> None:
    plans = _plans(traces, kills=False, scenario="turn", occurrences=2)
    behind = triggered(traces["turn"].least["worker"])
    _kept(runner, [*pairs(plans, 15, SEED), *sample(behind, 2, SEED)])
