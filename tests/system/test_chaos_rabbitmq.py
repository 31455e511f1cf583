"""A short chaos run with RabbitMQ as the broker: ``make chaos CHAOS="--broker rabbitmq"``."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.controller import run
from tests.chaos.plan import Plan
from tests.chaos.report import report


@pytest.mark.timeout(900)
def test_nothing_is_lost_with_rabbitmq(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", zlib.crc32(os.urandom(8))))
    plan = Plan(
        folder=tmp_path, seed=seed, turns=100, lease=2, heartbeat=0.5, kills=2, redis_restarts=1,
        broker="rabbitmq", broker_outages=2, broker_flushes=1, cuts=1,
    )  # fmt: skip
    outcome = run(plan, Console())
    report(outcome, Console(width=100))
    assert outcome.problems == [], f"seed {seed}"
