"""``python -m tests.chaos``: one run, with a table; exits 1 when a zero is not zero."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos import controller, poison, storm
from tests.chaos.options import parse

SCENARIOS = {
    "random": (controller.Plan, controller.run, controller.report),
    "poison": (poison.PoisonPlan, poison.run, poison.report),
    "storm": (storm.StormPlan, storm.run, storm.report),
}


def main() -> None:
    """Harm a stack and check that nothing is lost."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--scenario", choices=SCENARIOS, default="random")
    chosen, rest = choice.parse_known_args()
    if not any(word.startswith("--seed") for word in rest):
        rest += ["--seed", str(random.SystemRandom().randrange(2**32))]
    plan_type, run, report = SCENARIOS[chosen.scenario]
    folder = Path(tempfile.mkdtemp(prefix="agentapi-chaos-"))
    plan = parse(plan_type, rest, f"chaos --scenario {chosen.scenario}", folder=folder)
    console = Console()
    console.print(f"seed {plan.seed}, logs in {folder}")
    outcome = run(plan, console)
    report(outcome, console)
    sys.exit(1 if outcome.problems else 0)


if __name__ == "__main__":
    main()
