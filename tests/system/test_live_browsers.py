"""The short form of ``make browsers``: every page stays live, and no fault is seen on any."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.system.browser import Visits
from tests.system.live.run import LivePlan, run


@pytest.mark.timeout(600)
def test_pages_that_stay_open_stay_live(visits: Visits, tmp_path: Path) -> None:
    plan = LivePlan(folder=tmp_path, minutes=0.5, browsers=7)
    outcome = run(plan, visits, Console(quiet=True))
    assert outcome.problems == []
    assert outcome.turns > 5
    assert {kind for kind, _ in outcome.trends} >= {"memory", "files", "clients"}
