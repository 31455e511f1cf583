"""The bounded runs of CI."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos import outage, poison, storm
from tests.chaos.controller import run
from tests.chaos.plan import Outcome, Plan
from tests.chaos.report import report


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("CHAOS_SEED", zlib.crc32(os.urandom(8))))


def carry_out(plan: Plan) -> Outcome:
    outcome = run(plan, Console())
    report(outcome, Console(width=100))
    assert outcome.problems == [], f"seed {plan.seed}"
    return outcome


@pytest.mark.timeout(900)
def test_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    plan = Plan(
        folder=tmp_path, seed=seed, turns=200, lease=2, heartbeat=0.5, kills=5, redis_restarts=1,
        broker_flushes=1, watchdogs=1, clocks=1, disks=1, skews=5,
    )  # fmt: skip
    assert carry_out(plan).findings.takeovers > 0


@pytest.mark.timeout(900)
def test_the_master_fails_when_its_replica_lags(tmp_path: Path, seed: int) -> None:
    plan = Plan(
        folder=tmp_path, seed=seed, turns=100, lease=2, heartbeat=0.5, kills=1, store="sentinel",
        broker_flushes=0, failovers=1,
    )  # fmt: skip
    outcome = carry_out(plan)
    assert sum(loss.bytes_lost for loss in outcome.losses) > 0


@pytest.mark.timeout(900)
def test_a_shard_fails_and_a_slot_moves(tmp_path: Path, seed: int) -> None:
    plan = Plan(
        folder=tmp_path, seed=seed, turns=40, workers=2, lease=2, heartbeat=0.5, kills=1,
        store="cluster", broker="valkey", broker_outages=0, failovers=1, moves=1, stalls=0,
    )  # fmt: skip
    carry_out(plan)


@pytest.mark.timeout(900)
def test_the_network_and_a_broker_of_its_own_fail(tmp_path: Path, seed: int) -> None:
    plan = Plan(
        folder=tmp_path, seed=seed, turns=100, lease=2, heartbeat=0.5, kills=0, redis_restarts=0,
        broker="valkey", cuts=2, broker_outages=1, blocks=1,
    )  # fmt: skip
    carry_out(plan)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("weapon", ["kill", "oom"])
def test_poison_among_innocents(tmp_path: Path, seed: int, weapon: str) -> None:
    plan = poison.PoisonPlan(folder=tmp_path, seed=seed, weapon=weapon, innocents=12, seconds=1)
    outcome = poison.run(plan, Console())
    poison.report(outcome, Console(width=100))
    assert outcome.problems == [], f"seed {seed}"


@pytest.mark.timeout(900)
def test_lost_machines_count_towards_nothing(tmp_path: Path, seed: int) -> None:
    plan = storm.StormPlan(folder=tmp_path, seed=seed, turns=60, open_turns=40, seconds=6)
    outcome = storm.run(plan, Console())
    storm.report(outcome, Console(width=100))
    assert outcome.problems == [], f"seed {seed}"


@pytest.mark.timeout(900)
def test_a_provider_that_is_away_costs_no_turn(tmp_path: Path, seed: int) -> None:
    plan = outage.OutagePlan(folder=tmp_path, seed=seed, turns=60, seconds=8, kill=True)
    outcome = outage.run(plan, Console())
    outage.report(outcome, Console(width=100))
    assert outcome.problems == [], f"seed {seed}"
    assert outcome.parks > 0
