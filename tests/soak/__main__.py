"""``python -m tests.soak``: one run, with a table and curves; exits 1 when anything grows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.options import parse
from tests.soak.report import report
from tests.soak.run import SoakPlan, run


def main() -> None:
    """Run a mixed load for a time and fail on growth."""
    folder = Path(tempfile.mkdtemp(prefix="agentapi-soak-"))
    plan = parse(SoakPlan, sys.argv[1:], "soak", folder=folder)
    console = Console()
    console.print(f"seed {plan.seed}, logs in {folder}")
    outcome = run(plan, console)
    report(outcome, console)
    sys.exit(1 if outcome.problems else 0)


if __name__ == "__main__":
    main()
