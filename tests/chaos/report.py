"""What a random run has done and found, on the screen and in docs/reliability.md."""

from __future__ import annotations

import platform
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.figures import publish, spread
from tests.chaos.plan import FAULTS, Outcome, Plan, settled

FIGURES: Final = (
    "store",
    "broker",
    "turns",
    "workers",
    "lease",
    "heartbeat",
    *FAULTS,
    "node_timeout",
    "seed",
)
"""Options of a plan that belong to its row."""

SERVERS: Final = {
    "single": "one Valkey",
    "sentinel": "Sentinel, a replica",
    "cluster": "Cluster of 3 + 3",
    "store": "the store",
    "valkey": "another Valkey",
    "rabbitmq": "RabbitMQ",
}
"""What servers are called in tables."""


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
        publish("zeros", zeros_row(outcome), keys=2)


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
    done = ", ".join(f"{fault} {count}" for fault, count in sorted(outcome.faults.items()))
    waits = [
        str(spread(outcome.recovery.get(cause, [])) or "–")
        for cause in ("kill -9", "machine lost", "SIGTERM")
    ]
    zeros = sum(map(len, outcome.findings.zeros.values()))
    return [
        f"`{options(outcome.plan)}`",
        f"{outcome.turns:,}",
        done,
        f"{outcome.findings.takeovers:,}",
        str(zeros or "nothing"),
        *waits,
    ]


def zeros_row(outcome: Outcome) -> list[str]:
    """The run as a row of the table of zeros, by its servers."""
    plan, found = outcome.plan, outcome.findings
    return [
        SERVERS[plan.store],
        SERVERS[plan.broker],
        f"{outcome.turns:,}",
        f"{sum(outcome.faults.values()):,}",
        f"{found.takeovers:,}",
        *(str(len(what)) for what in found.zeros.values()),
        str(len(found.lost_with_master)) if outcome.losses else "–",
        f"{datetime.now(UTC):%Y-%m-%d}",
    ]


def options(plan: Plan) -> str:
    """The words of the command line that make the plan."""
    servers = Plan(folder=plan.folder, store=plan.store, broker=plan.broker)
    usual = {field.name: getattr(settled(servers), field.name) for field in fields(plan)}
    # Whatever the usual servers and seed are.
    usual |= {"store": Plan.store, "broker": Plan.broker, "seed": None}
    return " ".join(
        f"--{name.replace('_', '-')} {_plain(getattr(plan, name))}"
        for name in FIGURES
        if getattr(plan, name) != usual[name]
    )


def _plain(value: float | str) -> str:
    """A number without a fraction that is zero."""
    return str(int(value) if isinstance(value, float) and value == int(value) else value)
