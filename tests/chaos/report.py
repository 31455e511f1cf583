"""What a random run has done and found, on the screen and in docs/reliability.md."""

from __future__ import annotations

import platform
from dataclasses import fields
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.figures import publish, spread
from tests.chaos.plan import FAULTS, Outcome

FIGURES: Final = ("turns", "workers", "lease", "heartbeat", *FAULTS, "seed")
"""Options of a plan that belong to its row."""


def report(outcome: Outcome, console: Console) -> None:
    """Print it, and write it down if that was asked for."""
    plan, findings = outcome.plan, outcome.findings
    python = f"Python {platform.python_version()}"
    table = Table(title=f"chaos: seed {plan.seed}, {platform.system()}, {python}")
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, count in counts(outcome).items():
        table.add_row(name, count)
    table.add_section()
    for name, what in findings.zeros.items():
        table.add_row(name, f"[red]{len(what)}" if what else "[green]0")
    console.print(table)
    times = Table("waited for another worker after", "turns", "median s", "99th s", "max s")
    for cause, seconds in sorted(outcome.recovery.items()):
        if found := spread(seconds):
            figures = (found.median, found.high, found.largest)
            times.add_row(cause, str(len(seconds)), *(f"{figure:.2f}" for figure in figures))
    console.print(times)
    for problem in outcome.problems:
        console.print(f"[red]{problem}")
    if plan.publish:
        publish("chaos", row(outcome))


def counts(outcome: Outcome) -> dict[str, str]:
    """What was done, and what need not be zero."""
    findings = outcome.findings
    found = {"turns accepted": f"{outcome.turns:,}", "seconds": f"{outcome.elapsed:.0f}"}
    found |= {f"fault: {fault}": str(count) for fault, count in sorted(outcome.faults.items())}
    found |= {
        "turns taken over": str(findings.takeovers),
        "writes of zombies refused": str(outcome.zombies),
        "workers that ended themselves": str(outcome.ended_themselves),
        "calls whose outcome is unknown": str(findings.unknown_outcomes),
        "enqueue calls repeated": str(outcome.repeats),
        "histories read meanwhile": f"{outcome.reads:,}",
    }
    if outcome.losses:
        served = spread([loss.served - loss.killed for loss in outcome.losses])
        found |= {
            "bytes that died with a master": f"{sum(o.bytes_lost for o in outcome.losses):,}",
            "acceptances that died with it": str(len(findings.lost_with_master)),
            "turns that ran again for it": str(findings.repeated_after_loss),
            "seconds without a master": str(served),
        }
    return found


def row(outcome: Outcome) -> list[str]:
    """The run as a row of the page's table."""
    plan = outcome.plan
    options = " ".join(
        f"--{field.name.replace('_', '-')} {_plain(getattr(plan, field.name))}"
        for field in fields(plan)
        if field.name in FIGURES
        and (field.name == "seed" or getattr(plan, field.name) != field.default)
    )
    done = ", ".join(f"{fault} {count}" for fault, count in sorted(outcome.faults.items()))
    waits = [
        str(spread(outcome.recovery.get(cause, [])) or "–")
        for cause in ("kill -9", "machine lost", "SIGTERM")
    ]
    zeros = sum(map(len, outcome.findings.zeros.values()))
    return [
        f"`{options}`",
        f"{outcome.turns:,}",
        done,
        f"{outcome.findings.takeovers:,}",
        str(zeros or "nothing"),
        *waits,
    ]


def _plain(value: float) -> str:
    """A number without a fraction that is zero."""
    return str(int(value) if value == int(value) else value)
