"""One tiny round of every case that needs no environment of its own."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from rich.console import Console

from benchmarks import stores
from benchmarks.__main__ import CASES, Plan, run
from benchmarks.contest import CONTENDERS, RUNTIME, Contender
from benchmarks.environments import CannotInstall, Environment


def contender(name: str) -> Contender:
    return next(one for one in CONTENDERS if one.name == name)


@pytest.mark.timeout(900)
def test_a_tiny_round() -> None:
    plan = Plan(
        cases=CASES,
        contenders=[contender(RUNTIME)],
        rounds=1,
        turns=20,
        at_once=10,
        delay=0.1,
        workers=1,
        conversations=100,
        listed=100,
        seconds=0.5,
        processes=(1,),
        # RabbitMQ is a Debian package, which this suite does not need.
        stores=(stores.ONE, stores.SHARDS),
    )
    before = set(psutil.Process().children())
    results = run(plan, Console(quiet=True))
    # Nothing is left, running or dead; who ran before in this process is another's matter.
    assert set(psutil.Process().children()) <= before
    assert results.left_out == {}
    values = {
        (metric.case, metric.name, who): found
        for metric, by_who in results.values.items()
        for who, found in by_who.items()
    }
    # The archive's case takes several samples of each figure.
    once = [found for (case, _, _), found in values.items() if not case.startswith("archive")]
    assert all(len(found) == 1 for found in once)
    assert values["throughput, 1 worker process", "turns a second", RUNTIME][0] > 0
    cases = {case for case, _, _ in values}
    assert len(cases) == 21


def test_an_environment_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.environments.CACHE", tmp_path)
    broken = Environment(name="broken", requirements=(), python="no-such-python")
    with pytest.raises(CannotInstall, match="uv"):
        broken.interpreter()
    assert not (broken.folder() / ".ready").exists()
