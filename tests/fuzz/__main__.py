"""``make fuzz``: one target or all, for as long as one likes, from a seed."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.stack import start_valkey
from tests.fuzz.bench import bench
from tests.fuzz.rig import Rig
from tests.fuzz.rounds import run_round
from tests.fuzz.target import Target

ROUND = 25
"""Examples between two looks at what is left over."""

console = Console()


def main(
    minutes: Annotated[float, typer.Option(help="How long to go on.")] = 10,
    target: Annotated[str, typer.Option(help="Which target; all of them when not given.")] = "",
    seed: Annotated[int, typer.Option(help="Where to begin; a random one when 0.")] = 0,
) -> None:
    """Send malformed input of every kind to a real worker and gateway."""
    first = seed or random.randrange(1, 10**6)
    console.print(f"seed {first}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valkey, url = start_valkey(folder)
        try:
            with bench(url, folder) as made:
                unknown = target and target not in made.targets
                if unknown:
                    raise typer.BadParameter(f"expected one of {', '.join(made.targets)}")
                chosen = [made.targets[target]] if target else list(made.targets.values())
                failed = _go_on(made.rig, chosen, first, minutes * 60)
        finally:
            valkey.stop()
    sys.exit(1 if failed else 0)


def _go_on(rig: Rig, targets: list[Target], first: int, seconds: float) -> bool:
    """Rounds of all targets in turn until the time is up; whether one failed."""
    until = time.monotonic() + seconds
    columns = (
        TextColumn("{task.fields[target]:>10}"),
        BarColumn(),
        TextColumn("{task.fields[examples]} examples, seed {task.fields[seed]}"),
        TimeElapsedColumn(),
    )
    examples, number = 0, first
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=seconds, target="", examples=0, seed=number)

        def tick() -> None:
            nonlocal examples
            examples += 1
            progress.update(bar, completed=seconds - (until - time.monotonic()), examples=examples)

        while time.monotonic() < until:
            for target in targets:
                progress.update(bar, target=target.name, seed=number)
                try:
                    run_round(rig, target, number, ROUND, tick)
                except Exception as error:
                    progress.stop()
                    _tell(target, number, error)
                    return True
                if time.monotonic() > until:
                    break
            number += 1
    console.print(f"{examples} examples, no promise was broken")
    return False


def _tell(target: Target, number: int, error: BaseException) -> None:
    console.print(
        f"\ntarget {target.name}, seed {number}: {type(error).__name__}", style="bold red"
    )
    for one in _flat(error):
        console.print(f"{type(one).__name__}: {str(one)[:3000]}", markup=False)
        for note in getattr(one, "__notes__", ()):
            console.print(note, markup=False)
    console.print(f'\nAgain: make fuzz FUZZ="--target {target.name} --seed {number} --minutes 1"')


def _flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [error, *(found for inner in error.exceptions for found in _flat(inner))]
    return [error]


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
