"""The curves of a soak as one SVG: a small chart for each kind of figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.soak.gauges import UNITS, Series

WIDTH: Final = 520
HEIGHT: Final = 250
LEFT: Final = 52
RIGHT: Final = 12
TOP: Final = 34
FLOOR: Final = 188
COLOURS: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2")
TITLES: Final = {
    "memory": "Memory",
    "files": "Open descriptors",
    "threads": "Threads",
    "tasks": "asyncio tasks",
    "processes": "Processes",
    "keys": "Keys in Redis",
}
MOST_POINTS: Final = 200

Points = Sequence[tuple[float, float]]


def draw(series: Series, faults: Sequence[float]) -> str:
    """Draw all series.

    Args:
        series: What was measured.
        faults: When something was broken, in seconds; marked below each chart.
    """
    kinds = [kind for kind in TITLES if any(key[0] == kind for key in series.points)]
    charts = []
    for number, kind in enumerate(kinds):
        lines = {subject: points for (k, subject), points in series.points.items() if k == kind}
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT
        charts.append(f'<g transform="translate({x},{y})">{chart(kind, lines, faults)}</g>')
    height = (len(kinds) + 1) // 2 * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {height}" '
        f'width="{2 * WIDTH}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(charts)}</svg>\n'
    )


def chart(kind: str, lines: Mapping[str, Points], faults: Sequence[float]) -> str:
    """One chart: title, axes, a line for each subject, its names below."""
    scale = Scale(
        end=max((points[-1][0] for points in lines.values()), default=1.0) or 1.0,
        top=nice(max((value for points in lines.values() for _, value in points), default=1.0)),
    )
    paths = [
        polyline([(scale.x(time), scale.y(value)) for time, value in thinned(lines[subject])], n)
        for n, subject in enumerate(sorted(lines))
    ]
    return "".join([*axes(kind, scale, faults), *paths, *legend(sorted(lines))])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From time and value to a place in the chart.

    Attributes:
        end: The last time, in seconds.
        top: The value at the upper edge.
    """

    end: float
    top: float

    def x(self, time: float) -> float:
        """Where a time is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(time / self.end, 1.0)

    def y(self, value: float) -> float:
        """Where a value is."""
        return TOP + (FLOOR - TOP) * (1 - value / self.top)


def axes(kind: str, scale: Scale, faults: Sequence[float]) -> list[str]:
    """Title, unit, lines of the grid with their values, minutes, and a mark for each fault."""
    right = WIDTH - RIGHT
    parts = [
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold">{TITLES[kind]}</text>',
        f'<text x="{right}" y="20" text-anchor="end" fill="#666">{UNITS[kind]}</text>',
    ]
    for step in range(5):
        value, time = scale.top * step / 4, scale.end * step / 4
        y, x = scale.y(value), scale.x(time)
        minutes = f"{time / 60:.3g}" + (" min" if step == 4 else "")
        anchor = "end" if step == 4 else "middle"
        parts += [
            f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:,.4g}</text>',
            f'<text x="{x:.1f}" y="{FLOOR + 16}" text-anchor="{anchor}">{minutes}</text>',
        ]
    for at in faults:
        x = scale.x(at)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{FLOOR}" y2="{FLOOR + 4}" stroke="#d00"/>'
        )
    return parts


def polyline(places: Points, number: int) -> str:
    """The line of one subject."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    colour = COLOURS[number % len(COLOURS)]
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def legend(subjects: Iterable[str]) -> list[str]:
    """The names of the lines, below the chart, in up to two rows."""
    parts = []
    x, y = LEFT, FLOOR + 34
    for number, subject in enumerate(subjects):
        width = 24 + 6.2 * len(subject)
        if x + width > WIDTH:
            x, y = LEFT, y + 16
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<rect x="{x:.0f}" y="{y - 8}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{x + 14:.0f}" y="{y + 1}">{escape(subject)}</text>'
        )
        x += int(width)
    return parts


def thinned(points: Points) -> Points:
    """So few points that the picture stays small, the last one among them."""
    step = max(1, len(points) // MOST_POINTS)
    return [*points[::step], points[-1]]


def nice(value: float) -> float:
    """A round number that is at least this, for the top of an axis."""
    size = 1.0
    while size * 10 <= value:
        size *= 10
    return next(size * factor for factor in (1, 2, 4, 8, 10) if size * factor >= value)
