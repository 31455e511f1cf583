"""``python -m tests.chaos``: one run, with a table; exits 1 when a zero is not zero."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.chaos import controller, outage, plan, poison, report, storm
from tests.chaos.options import parse
from tests.system.packages import Missing

SCENARIOS: dict[str, tuple[type[Any], Callable[..., Any], Callable[..., None]]] = {
    "random": (plan.Plan, controller.run, report.report),
    "poison": (poison.PoisonPlan, poison.run, poison.report),
    "outage": (outage.OutagePlan, outage.run, outage.report),
    "storm": (storm.StormPlan, storm.run, storm.report),
}


def main() -> None:
    """Harm a stack and check that nothing is lost."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--scenario", choices=SCENARIOS, default="random")
    chosen, rest = choice.parse_known_args()
    if not any(word.startswith("--seed") for word in rest):
        rest += ["--seed", str(random.SystemRandom().randrange(2**32))]
    kind, run, show = SCENARIOS[chosen.scenario]
    folder = Path(tempfile.mkdtemp(prefix="agentapi-chaos-"))
    wanted = parse(kind, rest, f"chaos --scenario {chosen.scenario}", folder=folder)
    console = Console()
    console.print(f"seed {wanted.seed}, logs in {folder}")
    try:
        outcome = run(wanted, console)
    except (Missing, ValueError) as error:
        sys.exit(f"chaos: {error}")
    show(outcome, console)
    sys.exit(1 if outcome.problems else 0)


if __name__ == "__main__":
    main()
