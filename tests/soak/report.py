"""What a soak has found, on the screen and in docs/."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.chaos.figures import PAGE, publish
from tests.soak.gauges import UNITS
from tests.soak.picture import draw
from tests.soak.run import SoakOutcome

PICTURE = PAGE.with_name("soak.svg")


def report(outcome: SoakOutcome, console: Console) -> None:
    """Print it, write the curves beside the logs, and into docs/ if that was asked for."""
    plan = outcome.plan
    table = Table("what", "median", "peak", "growth", "allowed", title=f"soak: seed {plan.seed}")
    for row in rows(outcome):
        table.add_row(*row)
    console.print(table)
    console.print(counts(outcome))
    for problem in outcome.problems:
        console.print(f"[red]{problem}", markup=True)
    picture = draw(outcome.series, outcome.fault_times)
    (plan.folder / "soak.svg").write_text(picture)
    console.print(f"curves: {plan.folder / 'soak.svg'}")
    if plan.publish:
        PICTURE.write_text(picture)
        for row in rows(outcome):
            publish("soak", row)
        publish("soak run", [counts(outcome)])


def rows(outcome: SoakOutcome) -> list[list[str]]:
    """A row for each series: how it went, how much it may have grown."""
    return [
        [
            f"{kind}: {subject}",
            f"{one.median:,.4g} {UNITS[kind]}",
            f"{one.largest:,.4g}",
            f"{one.growth:+,.2g}",
            f"{one.allowed:,.2g}",
        ]
        for (kind, subject), one in outcome.trends.items()
    ]


def counts(outcome: SoakOutcome) -> str:
    """What was done, in a sentence."""
    problems = len(outcome.problems)
    faults = ", ".join(f"{name} {count}" for name, count in sorted(outcome.faults.items()))
    return (
        f"{outcome.plan.minutes:g} minutes, {sum(outcome.visits.values()):,} visits, "
        f"{sum(outcome.refused.values())} refused while Redis was away, "
        f"{problems} problem{'' if problems == 1 else 's'}; faults: {faults or 'none'}"
    )
