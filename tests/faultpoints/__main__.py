"""``python -m tests.faultpoints``: every fault, and pairs; exits 1 when a promise is broken."""

from __future__ import annotations

import platform
import random
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.faultpoints import matrix as matrices
from tests.faultpoints.cell import Planned, Result
from tests.faultpoints.plans import SCENARIOS, pairs, sample, singles, triggered
from tests.faultpoints.runner import DATABASES, Runner


def main(
    scenario: Annotated[list[str] | None, typer.Option(help="One of them; all by default.")] = None,
    role: Annotated[str, typer.Option(help="Faults of this process only.")] = "",
    only: Annotated[
        str, typer.Option(help='Only faults with this in their names: "kill at script claim".')
    ] = "",
    occurrences: Annotated[
        int, typer.Option(min=0, help="Passages of each point to look at; 0 for all.")
    ] = 0,
    most: Annotated[int, typer.Option(min=0, help="Sample so many faults; 0 for all.")] = 0,
    pairs_: Annotated[int, typer.Option("--pairs", min=0, help="Pairs of faults to sample.")] = 200,
    seed: Annotated[int | None, typer.Option(help="Of the samples; random by default.")] = None,
    cells: Annotated[int, typer.Option(min=1, max=DATABASES, help="Runs at a time.")] = 4,
) -> None:
    """Make every fault happen, and check that every promise is kept.

    A run that leaves no point out writes the matrix into docs/reliability.md.
    """
    console = Console()
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="agentapi-faults-"))
    console.print(f"seed {seed}, logs in {folder}")
    began = time.monotonic()
    matrix = matrices.Matrix()
    broken: list[Result] = []
    with Runner(folder, cells) as runner:
        plans, behind = _plans(runner, scenario or list(SCENARIOS), occurrences, broken)
        behind = [plan for plan in behind if pairs_ and role in ("", plan.role)]
        plans = [plan for plan in plans if role in ("", plan.role)]
        plans = [plan for plan in plans if only in str(plan.faults[0])]
        both = [*pairs(plans, pairs_, seed), *behind]
        if most:
            plans = sample(plans, most, seed)
        _carry_out(runner, [*plans, *both], matrix, broken, console)
    minutes = (time.monotonic() - began) / 60
    for line in matrices.report(broken):
        console.print(line, markup=False)
    console.print(matrices.shown(matrix))
    if not (scenario or role or only or most):
        heading = (
            f'`make faults FAULTS="--occurrences {occurrences} --pairs {pairs_} --seed {seed}"`, '
            f"{platform.system()}, Python {platform.python_version()}, {minutes:.0f} minutes:"
        )
        matrices.write(matrices.markdown(matrix, heading))
    raise typer.Exit(1 if broken else 0)


def _plans(
    runner: Runner, scenarios: list[str], occurrences: int, broken: list[Result]
) -> tuple[list[Planned], list[Planned]]:
    """All single faults, and those behind another. A point that two scenarios pass is looked at in
    the first."""
    plans: list[Planned] = []
    behind: list[Planned] = []
    seen: set[tuple[str, str]] = set()
    for name in scenarios:
        passed, results = runner.trace(name)
        broken += [result for result in results if result.broken]
        for role, points in passed.items():
            new = {point: count for point, count in points.items() if (role, point) not in seen}
            seen |= {(role, point) for point in new}
            plans += singles(name, role, new, occurrences)
            if (name, role) == ("turn", "worker"):
                behind = triggered(points)
    return plans, behind


def _carry_out(
    runner: Runner,
    plans: list[Planned],
    matrix: matrices.Matrix,
    broken: list[Result],
    console: Console,
) -> None:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    task = progress.add_task("faults", total=len(plans))
    with Live(console=console, refresh_per_second=2) as live:

        def heard(result: Result) -> None:
            matrix.add(result)
            if result.broken:
                broken.append(result)
                for line in matrices.report([result]):
                    console.print(line, markup=False)
            told = f"faults, {len(broken)} broke a promise"
            progress.update(task, advance=1, description=told)
            live.update(Group(matrices.shown(matrix), progress))

        runner.run(plans, heard)


if __name__ == "__main__":
    typer.run(main)
