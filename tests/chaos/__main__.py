"""``python -m tests.chaos``: one run, with a table; exits 1 when a zero is not zero."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos.controller import Chaos, Plan, report


def main(
    turns: Annotated[int, typer.Option(min=1, help="Turns to enqueue.")] = 2000,
    kills: Annotated[int, typer.Option(min=0, help="Workers to lose.")] = 40,
    seed: Annotated[
        int | None, typer.Option(help="To repeat a run; random when not given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=2)] = 3,
    lease: Annotated[float, typer.Option(help="lease_ttl in seconds; the default is 10.")] = 10,
    heartbeat: Annotated[float, typer.Option(help="Seconds between beats.")] = 3,
    redis_restarts: Annotated[int, typer.Option(min=0)] = 3,
    broker_flushes: Annotated[int, typer.Option(min=0)] = 3,
) -> None:
    """Harm a stack at random and check that nothing is lost."""
    console = Console()
    plan = Plan(
        folder=Path(tempfile.mkdtemp(prefix="agentapi-chaos-")),
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        turns=turns,
        kills=kills,
        workers=workers,
        lease_ttl=lease,
        heartbeat=heartbeat,
        redis_restarts=redis_restarts,
        broker_flushes=broker_flushes,
    )
    console.print(f"seed {plan.seed}, logs in {plan.folder}")
    outcome = Chaos(plan, console).run()
    report(outcome, console)
    raise typer.Exit(0 if outcome.well else 1)


if __name__ == "__main__":
    typer.run(main)
