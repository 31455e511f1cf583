"""Whether a figure grows: robust, so that a peak is no growth and steady growth is found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

WARM_UP: Final = 0.25
"""The part of a run that is left out: pools and caches fill."""

_MOST: Final = 120
"""Points that are compared with each other."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How much a figure may grow over the part of a run that counts.

    Attributes:
        absolute: In the figure's own unit.
        relative: As a part of its median; the larger of both counts.
    """

    absolute: float
    relative: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How a figure went.

    Attributes:
        median: Its middle, after the warm-up.
        largest: Its peak, the warm-up included.
        growth: By how much it grew from the warm-up to the end, in its own unit.
        allowed: By how much it might.
    """

    median: float
    largest: float
    growth: float
    allowed: float

    @property
    def grows(self) -> bool:
        """Whether it grew by more than it may."""
        return self.growth > self.allowed


def trend(points: Sequence[tuple[float, float]], bound: Bound) -> Trend | None:
    """The trend of a figure: the median of the slopes between all pairs of its points (Theil-Sen).

    Args:
        points: Time and value, in order.
        bound: How much it may grow.

    Returns:
        The trend, or None if too little of it was seen.
    """
    if len(points) < 4:
        return None
    begin, end = points[0][0], points[-1][0]
    counted = [point for point in points if point[0] >= begin + (end - begin) * WARM_UP]
    sparse = counted[:: max(1, len(counted) // _MOST)]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for earlier, later in combinations(sparse, 2)
        if later[0] > earlier[0]
    ]
    if not slopes:
        return None
    middle = statistics.median(value for _, value in counted)
    return Trend(
        median=middle,
        largest=max(value for _, value in points),
        growth=statistics.median(slopes) * (counted[-1][0] - counted[0][0]),
        allowed=max(bound.absolute, bound.relative * abs(middle)),
    )
