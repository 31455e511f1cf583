"""The short form of CI: everything is done once, and nothing is left when it has ended."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from rich.console import Console

from tests.soak.report import report
from tests.soak.run import SoakPlan, run


@pytest.mark.timeout(900)
def test_nothing_grows(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", zlib.crc32(os.urandom(8))))
    plan = SoakPlan(folder=tmp_path, minutes=0.35, rate=8, fault_every=5, seed=seed)
    outcome = run(plan, Console())
    report(outcome, Console(width=100))
    assert outcome.problems == [], f"seed {seed}"
    assert sum(outcome.visits.values()) > 20
    assert sum(outcome.faults.values()) > 0
    assert {kind for kind, _ in outcome.trends} > {"memory", "files", "threads", "keys"}
