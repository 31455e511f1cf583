"""Figures of runs: percentiles, and rows of the tables in docs/reliability.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/reliability.md"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, 99th percentile and maximum of some figures."""

    median: float
    high: float
    largest: float

    def __str__(self) -> str:
        return f"{self.median:.1f} / {self.high:.1f} / {self.largest:.1f} s"


def spread(seconds: Sequence[float]) -> Spread | None:
    """The spread of some figures, if there are any."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return Spread(
        median=ordered[len(ordered) // 2],
        high=ordered[max(0, round(len(ordered) * 0.99) - 1)],
        largest=ordered[-1],
    )


def publish(region: str, row: Sequence[str], page: Path = PAGE, *, keys: int = 1) -> None:
    """Add a row to the table in a region of a page, or replace the row with the same first cells.

    A region is a table between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
    """
    text = page.read_text()
    found = re.search(rf"<!-- {region} -->\n(.*\n)<!-- /{region} -->", text, re.S)
    if found is None:
        raise LookupError(f"{page} has no region {region!r}")
    rows = found[1].splitlines()
    new = "| " + " | ".join(row) + " |"
    same = [
        number for number, old in enumerate(rows) if old.startswith(f"| {' | '.join(row[:keys])} |")
    ]
    if same:
        rows[same[0]] = new
    else:
        rows.append(new)
    page.write_text(text[: found.start(1)] + "\n".join(rows) + "\n" + text[found.end(1) :])
