"""The matrix of points and effects: on the console while it grows, and in docs/reliability.md."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.table import Table

from tests.faultpoints.cell import Result
from tests.faultpoints.effects import Effect

DOCUMENT: Final = Path(__file__).parents[2] / "docs/reliability.md"
BEGIN: Final = "<!-- faults -->"
END: Final = "<!-- /faults -->"

Row = tuple[str, str]
"""A role, and a point or the kind of a point."""


@dataclass
class Count:
    """Runs of one kind.

    Attributes:
        fired: Runs in which the fault happened.
        broken: Those of them in which a promise was broken.
        missed: Runs in which the point was not passed that often.
    """

    fired: int = 0
    broken: int = 0
    missed: int = 0

    def add(self, result: Result) -> None:
        self.fired += bool(result.fired)
        self.broken += bool(result.broken)
        self.missed += not result.fired


@dataclass
class Matrix:
    """What came of all runs so far."""

    points: dict[Row, dict[Effect, Count]] = field(default_factory=lambda: defaultdict(dict))
    pairs: Count = field(default_factory=Count)

    def add(self, result: Result) -> None:
        """Count a run."""
        planned = result.planned
        if len(planned.faults) > 1:
            self.pairs.add(result)
        for fault in planned.faults if len(planned.faults) == 1 else ():
            row = (planned.role, fault.point)
            self.points[row].setdefault(fault.effect, Count()).add(result)

    @property
    def kinds(self) -> dict[Row, dict[Effect, Count]]:
        """The same by kinds of points."""
        found: dict[Row, dict[Effect, Count]] = defaultdict(dict)
        for (role, point), counts in sorted(self.points.items()):
            of_kind = found[role, point.partition(" ")[0]]
            for effect, count in counts.items():
                total = of_kind.setdefault(effect, Count())
                total.fired += count.fired
                total.broken += count.broken
                total.missed += count.missed
        return found

    @property
    def total(self) -> Count:
        """All runs with one fault."""
        counts = [count for row in self.points.values() for count in row.values()]
        return Count(
            fired=sum(count.fired for count in counts),
            broken=sum(count.broken for count in counts),
            missed=sum(count.missed for count in counts),
        )


def shown(matrix: Matrix) -> Table:
    """For the console."""
    table = Table("process", "point", *(effect.value for effect in Effect), title="faults")
    for (role, kind), counts in matrix.kinds.items():
        table.add_row(role, kind, *(_cell(counts.get(effect), "[red]{}[/]") for effect in Effect))
    return table


def _cell(count: Count | None, broken: str) -> str:
    if count is None or count.fired == 0:
        return ""
    return (
        str(count.fired) if not count.broken else broken.format(f"{count.broken} of {count.fired}")
    )


def markdown(matrix: Matrix, heading: str) -> str:
    """For the document."""
    total, pairs = matrix.total, matrix.pairs
    lines = [
        heading,
        "",
        f"{len(matrix.points)} points, {total.fired:,} runs with one fault, {pairs.fired:,} with "
        f"two; runs in which a promise was broken: **{total.broken + pairs.broken}**. (In "
        f"{total.missed:,} more the point was not passed as often as in the run before it.)",
        "",
        *_table("point", matrix.kinds),
        "",
        "<details><summary>Every point</summary>",
        "",
        *_table("point", dict(sorted(matrix.points.items())), code=True),
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _table(
    what: str, rows: Mapping[Row, Mapping[Effect, Count]], *, code: bool = False
) -> Iterable[str]:
    yield f"| process | {what} | {' | '.join(effect.value for effect in Effect)} |"
    yield "| --- | --- |" + " ---: |" * len(Effect)
    for (role, name), counts in rows.items():
        cells = [_cell(counts.get(effect), "**{}**") for effect in Effect]
        shown_name = f"`{name.replace('|', '/')}`" if code else name
        yield f"| {role} | {shown_name} | {' | '.join(cells)} |"


def write(text: str, document: Path = DOCUMENT) -> None:
    """Put the text between the marks of the document."""
    before = document.read_text()
    marked = re.compile(f"{BEGIN}.*{END}", re.S)
    assert marked.search(before), f"{document} has no {BEGIN} … {END}"
    document.write_text(marked.sub(lambda _: f"{BEGIN}\n{text}\n{END}", before))


def report(broken: Sequence[Result]) -> Iterable[str]:
    """Each run that broke a promise, in some lines."""
    for result in broken:
        where = ", ".join(sorted({hit["thread"] for hit in result.fired})) or "nowhere"
        yield f"{result.planned} (in {where})"
        yield from (f"    {what}" for what in result.broken[:6])
