"""Summarises several rounds of a measurement by their median and spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A summary of several values of one metric.

    Attributes:
        median: The median value.
        low: The smallest value.
        high: The largest value.
        count: The number of values.
    """

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """The range of the values as a share of the median; 0 if all are equal."""
        return (self.high - self.low) / abs(self.median) if self.median else 0.0


def summarize(values: Sequence[float]) -> Summary:
    """Summarise values.

    Args:
        values: At least one.

    Raises:
        ValueError: There are no values, or one is not a number.
    """
    if not values:
        raise ValueError("there is nothing to sum up: expected at least one value")
    if any(math.isnan(value) for value in values):
        raise ValueError("a value is not a number: a measurement failed without saying so")
    return Summary(
        median=statistics.median(values), low=min(values), high=max(values), count=len(values)
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least the given share of the values does not exceed.

    Args:
        values: At least one.
        share: Above 0, at most 1; 0.99 for the 99th percentile.

    Raises:
        ValueError: There is no value, or the share is out of its range.
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"share is {share}, of {len(values)} values: expected 0 < share <= 1")
    # Round first, because 0.07 * 100 is a little more than 7.
    return sorted(values)[max(0, math.ceil(round(share * len(values), 9)) - 1)]


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divide each round's value by the base's value in the same round.

    The machine is slower in some rounds than in others; the ratio cancels that out.

    Raises:
        ValueError: The rounds do not match, or a base is not above 0.
    """
    if len(values) != len(base):
        raise ValueError(f"{len(values)} rounds cannot be compared with {len(base)}")
    if any(value <= 0 for value in base):
        raise ValueError("a base of a ratio is not above 0")
    return [value / other for value, other in zip(values, base, strict=True)]
