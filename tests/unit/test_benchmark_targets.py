"""The verdict of a benchmark's run."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from benchmarks.contest import BARE, BY_HAND, RUNTIME
from benchmarks.results import Metric, Results
from benchmarks.targets import TARGETS, judged, targets_table

THROUGHPUT = Metric(case="throughput, 1 worker process", name="turns a second", unit="1/s")


def results(runtime: list[float], by_hand: list[float]) -> Results:
    found = Results()
    for who, values in ((RUNTIME, runtime), (BY_HAND, by_hand)):
        for value in values:
            found.add(THROUGHPUT, who, value)
    return found


@pytest.mark.parametrize(("runtime", "met"), [([500.0, 300.0, 450.0], True), ([390.0] * 3, False)])
def test_the_median_of_the_ratios_of_each_round_decides(runtime: list[float], met: bool) -> None:
    [(target, found)] = judged(results(runtime, [400.0, 400.0, 400.0]))
    assert target.at_least == 1
    assert found.median == pytest.approx(1.125 if met else 0.975)
    assert target.met(found.median) is met


def test_what_was_not_measured_in_all_rounds_is_not_judged() -> None:
    assert list(judged(results([500.0, 300.0], [400.0]))) == []
    assert list(judged(results([500.0], []))) == []
    assert targets_table(Results()) is None


def test_an_upper_bound_and_the_table() -> None:
    found = Results()
    metric = Metric(case="latency of a turn on an idle system", name="median", unit="ms")
    for who, value in ((BARE, 2.0), (RUNTIME, 3.5)):
        found.add(metric, who, value)
    table = targets_table(found)
    assert table is not None
    text = StringIO()
    Console(file=text, width=120).print(table)
    assert "≤ 1.5 x" in text.getvalue()
    assert "missed" in text.getvalue()


def test_each_target_has_one_bound() -> None:
    assert all((target.at_least is None) != (target.at_most is None) for target in TARGETS)
