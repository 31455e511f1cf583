"""``python -m tests.system.live``: one run, with a table; exits 1 when anything grows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from tests.chaos.options import parse
from tests.system.browser import Visits, launch
from tests.system.live.run import UNITS, LiveOutcome, LivePlan, run
from tests.system.packages import Missing, chromium


def main() -> None:
    """Keep browsers open for a time and fail on growth."""
    try:
        chromium()
    except Missing as error:
        sys.exit(str(error))
    folder = Path(tempfile.mkdtemp(prefix="agentapi-live-"))
    plan = parse(LivePlan, sys.argv[1:], "browsers", folder=folder)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"logs in {folder}")
    with sync_playwright() as playwright:
        browser = launch(playwright)
        outcome = run(plan, Visits(browser), console)
        browser.close()
    report(outcome, console)
    sys.exit(1 if outcome.problems else 0)


def report(outcome: LiveOutcome, console: Console) -> None:
    """Print what was measured."""
    table = Table("what", "median", "peak", "growth", "allowed")
    for (kind, subject), one in outcome.trends.items():
        table.add_row(
            f"{kind}: {subject}",
            f"{one.median:,.4g} {UNITS[kind]}",
            f"{one.largest:,.4g}",
            f"{one.growth:+,.2g}",
            f"{one.allowed:,.2g}",
        )
    console.print(table)
    console.print(
        f"{outcome.plan.minutes:g} minutes, {outcome.plan.browsers} browsers, "
        f"{outcome.answers:,} answers of the console, {outcome.turns:,} turns"
    )
    for problem in outcome.problems:
        console.print(problem, style="red", markup=False)


if __name__ == "__main__":
    main()
