"""Draws small charts on the server, so that pages need no script for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 100.0
HEIGHT: Final = 30.0
_TOP: Final = 2.0
"""Space above the highest value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A curve in a box of `WIDTH` by `HEIGHT`.

    Attributes:
        curve: The path of the curve.
        area: The path of the area below it.
        highest: The highest value.
        newest: The last value.
        words: Description for people who cannot see it.
    """

    curve: str
    area: str
    highest: float
    newest: float
    words: str


def chart_of(values: Sequence[float], words: str) -> Chart | None:
    """Draw values from left to right; None if there are fewer than two."""
    if len(values) < 2:
        return None
    highest = max(values)
    step = WIDTH / (len(values) - 1)
    scale = (HEIGHT - _TOP) / highest if highest > 0 else 0.0
    points = [
        f"{number * step:.2f} {HEIGHT - value * scale:.2f}" for number, value in enumerate(values)
    ]
    curve = "M" + " L".join(points)
    return Chart(
        curve=curve,
        area=f"{curve} L{WIDTH:.0f} {HEIGHT:.0f} L0 {HEIGHT:.0f} Z",
        highest=highest,
        newest=values[-1],
        words=words,
    )


def share_of(used: float, most: float | None) -> float | None:
    """The used percentage of a limit, 0 to 100; None without a limit."""
    return None if not most else max(0.0, min(100.0, 100.0 * used / most))
