"""The benchmarks' statistics."""

from __future__ import annotations

import math
from io import StringIO

import orjson
import pytest
from rich.console import Console

from benchmarks.done import Done
from benchmarks.results import Metric, Results
from benchmarks.stats import percentile, ratios, summarize


def test_a_summary_has_the_median_and_the_spread() -> None:
    summary = summarize([5.0, 1.0, 2.0])
    assert (summary.median, summary.low, summary.high, summary.count) == (2.0, 1.0, 5.0, 3)
    assert summary.spread == 2.0
    assert summarize([1.0, 2.0]).median == 1.5
    assert summarize([0.0, 0.0]).spread == 0.0


def test_a_negative_median_has_a_positive_spread() -> None:
    assert summarize([-1.0, -2.0, -3.0]).spread == 1.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_what_cannot_be_summed_up(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"sum up|not a number"):
        summarize(values)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.999, 100), (1, 100)]
)
def test_percentiles_are_values_that_were_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_a_percentile_of_one_value() -> None:
    assert percentile([7.0], 0.99) == 7.0
    # 0.07 * 100 is 7.000000000000001 in floating point.
    assert percentile([float(value) for value in range(1, 101)], 0.07) == 7.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_what_has_no_percentile(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < share"):
        percentile(values, share)


def test_rounds_are_compared_with_their_own_base() -> None:
    # The second round ran on a machine half as fast.
    assert ratios([200.0, 100.0], [100.0, 50.0]) == [2.0, 2.0]
    with pytest.raises(ValueError, match="cannot be compared"):
        ratios([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="not above 0"):
        ratios([1.0], [0.0])


SPEED = Metric(case="speed", name="turns a second", unit="1/s", base="slow")


def measured() -> Results:
    results = Results()
    for slow, fast in ((10.0, 30.0), (20.0, 40.0), (30.0, 90.0)):
        results.add(SPEED, "slow", slow)
        results.add(SPEED, "fast", fast)
    results.add(Metric(case="size", name="memory", unit="MiB"), "fast", 1234.5)
    results.leave_out("absent", "not installed")
    return results


def test_the_table_shows_every_figure() -> None:
    text = StringIO()
    measured().show(Console(file=text, width=140))
    shown = text.getvalue()
    for part in ("turns a second", "3.00 x", "1.00 x", "1,234", "left out: absent: not installed"):
        assert part in shown


def test_the_json_has_rounds_ratios_machine_and_versions() -> None:
    document = orjson.loads(measured().as_json({"rounds": 3}, 1.0))
    found = {(one["name"], one["who"]): one for one in document["results"]}
    fast = found["turns a second", "fast"]
    assert fast["rounds"] == [30.0, 40.0, 90.0]
    assert fast["compared"] == {"median": 3.0, "low": 2.0, "high": 3.0, "count": 3}
    assert found["memory", "fast"]["compared"] is None
    assert document["settings"] == {"rounds": 3}
    assert document["left_out"] == {"absent": "not installed"}
    assert document["machine"]["cores"] > 0
    assert "celery" in document["versions"]


def test_a_contender_that_missed_a_round_is_not_compared() -> None:
    results = measured()
    results.add(SPEED, "slow", 40.0)
    compared = {who: ratio for who, _, ratio in results.rows(SPEED)}
    assert compared["fast"] is None


def test_the_rate_does_not_count_the_start() -> None:
    done = Done(times=[3.0, 5.0, 5.0, 7.0])
    assert done.last == 7.0
    assert done.rate_after(1) == 0.75
    assert done.rate_after(2) == 1.0
