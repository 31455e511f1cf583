"""Measures the basis of capacity planning: ``python -m benchmarks.capacity``.

It measures what a turn costs each part of a fleet. Then it runs the same arrivals on real processes
and in the simulation, and compares the two.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.costs import TEXT, Bench, bench, measure
from orchestrator import TurnHandle
from orchestrator.capacity import Costs, Fleet, Load, Outcome, Simulation, read_costs

MOST_APART: Final = 0.15
"""Maximum deviation between simulation and measurement, as a share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One figure, measured and simulated."""

    name: str
    unit: str
    measured: float
    simulated: float

    @property
    def apart(self) -> float:
        """The simulation's deviation, as a share of the measured value."""
        return self.simulated / self.measured - 1


def main(
    turns: Annotated[int, typer.Option(min=100, help="Turns of each measurement.")] = 1000,
    costs: Annotated[
        Path | None, typer.Option(help="Use these costs instead of measuring them.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Where to write the costs.")] = None,
) -> None:
    """Measure the costs, and compare simulation and reality; fail if they differ too much."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.status("measuring costs"):
        measured = read_costs(costs) if costs else measure(turns)
    if write is not None:
        write.write_text(measured.model_dump_json(indent=2) + "\n")
    found: list[Compared] = []
    for name, compare in COMPARISONS.items():
        with console.status(f"comparing: {name}"):
            found += compare(measured)
    table = Table("figure", "measured", "simulated", "apart")
    for one in found:
        values = (f"{value:,.3g} {one.unit}" for value in (one.measured, one.simulated))
        table.add_row(one.name, *values, f"{one.apart:+.1%}")
    console.print(measured.model_dump(), table)
    if any(abs(one.apart) > MOST_APART for one in found):
        raise typer.Exit(1)


def busy_worker(costs: Costs, turns: int = 1500) -> list[Compared]:
    """A worker with a model that answers immediately: the CPU is the limit."""
    with bench() as running:
        seconds = drained(running, turns)
    outcome = _simulated(costs, [0.0] * turns, model_seconds=0.0, slots=64)
    return [
        Compared(
            name=f"{turns:,} turns, a model that answers at once",
            unit="turns/s",
            measured=turns / seconds,
            simulated=turns / outcome.seconds,
        )
    ]


def full_slots(costs: Costs, turns: int = 200) -> list[Compared]:
    """Eight slots and a model that takes half a second: the slots are the limit."""
    with bench(concurrency=8, env={"AGENTAPI_OFFLINE_DELAY": "0.5"}) as running:
        seconds = drained(running, turns)
    outcome = _simulated(costs, [0.0] * turns, model_seconds=0.5, slots=8)
    return [
        Compared(
            name=f"{turns} turns, 8 slots, a model of 0.5 s",
            unit="s",
            measured=seconds,
            simulated=outcome.seconds,
        )
    ]


def random_arrivals(costs: Costs, seconds: float = 30.0) -> list[Compared]:
    """Eight slots, 90% full, and a model that takes half a second, with random arrivals."""
    random_, at, arrivals = random.Random(7), 0.0, []
    while (at := at + random_.expovariate(0.9 * 8 / 0.5)) < seconds:
        arrivals.append(at)
    with bench(concurrency=8, env={"AGENTAPI_OFFLINE_DELAY": "0.5"}) as running:
        took, came = _offered(running, arrivals)
    # The producer's delays change the arrivals that the fleet sees, so the simulation gets them
    # too.
    outcome = _simulated(costs, came, model_seconds=0.5, slots=8)
    simulated = [end - begin for end, begin in zip(outcome.ended_at, came, strict=True)]
    return [
        Compared(
            name=f"{name} time of a turn, 8 slots, 90 % full",
            unit="s",
            measured=of(took),
            simulated=of(simulated),
        )
        for name, of in (("mean", statistics.mean), ("90 %", _p90))
    ]


COMPARISONS: Final[dict[str, Callable[[Costs], list[Compared]]]] = {
    "a busy worker": busy_worker,
    "full slots": full_slots,
    "random arrivals": random_arrivals,
}


def drained(running: Bench, turns: int) -> float:
    """Seconds that a worker takes to run the turns that wait for it."""
    with running.paused():
        handles = running.spread("plain", turns, TEXT)
    running.wait(handles)
    infos = [handle.info() for handle in handles]
    starts = [info.started_at for info in infos if info.started_at is not None]
    ends = [info.ended_at for info in infos if info.ended_at is not None]
    return max(ends) - min(starts)


def _offered(running: Bench, arrivals: Sequence[float]) -> tuple[list[float], list[float]]:
    """Enqueue turns at the given times; returns how long each took, and when each arrived."""
    began, handles = time.monotonic(), list[TurnHandle]()
    for number, at in enumerate(arrivals):
        time.sleep(max(0.0, began + at - time.monotonic()))
        handles.append(running.orchestrator.enqueue("plain", TEXT, conversation_id=f"o:{number}"))
    running.wait(handles)
    infos = [handle.info() for handle in handles]
    took = [(info.ended_at or info.created_at) - info.created_at for info in infos]
    return took, [info.created_at - infos[0].created_at for info in infos]


def _simulated(
    costs: Costs, arrivals: Sequence[float], *, model_seconds: float, slots: int
) -> Outcome:
    load = Load(turns_per_second=1, model_seconds=model_seconds, model_calls=1)
    return Simulation(
        load=load,
        fleet=Fleet(workers=1, slots=slots),
        costs=costs,
        steady=True,
        arrivals=[(at, number) for number, at in enumerate(arrivals)],
    ).run()


def _p90(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]


if __name__ == "__main__":
    typer.run(main)
