"""A machine lost every second, under load: none of the turns may fail for it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.chaos.checker import Findings, check
from tests.chaos.figures import publish, spread
from tests.chaos.fleet import Fleet, is_ready, lose_machine
from tests.chaos.load import Load
from tests.chaos.options import option
from tests.chaos.recovery import RecoveryClock


@dataclass(frozen=True, kw_only=True)
class StormPlan:
    """Workers that are lost one after the other with all that is beside them."""

    folder: Path
    seed: int = option(1, "decides who is lost")
    turns: int = option(1600, "turns at least")
    open_turns: int = option(120, "turns that wait or run all the time")
    workers: int = option(3, "worker processes; each that is lost is replaced at once")
    seconds: float = option(60.0, "how long machines are lost")
    every: float = option(1.0, "seconds between two losses")
    longest_tool: float = option(0.6, "seconds that a tool takes at most")
    publish: bool = option(False, "write the figures into docs/reliability.md")


@dataclass
class StormOutcome:
    """What became of the turns."""

    plan: StormPlan
    findings: Findings
    turns: int
    lost: int
    recovery: list[float]
    elapsed: float
    problems: list[str] = field(default_factory=list)


def run(plan: StormPlan, console: Console) -> StormOutcome:
    """Carry a plan out on a fleet of its own."""
    ledger = plan.folder / "ledger.jsonl"
    plan.folder.mkdir(parents=True, exist_ok=True)
    ledger.touch()
    fleet = Fleet(
        plan.folder,
        agents=("tests.chaos.agents",),
        workers=plan.workers,
        flower=False,
        env={"CHAOS_LEDGER": str(ledger)},
        lease_ttl=2,
        heartbeat=0.5,
        dispatch_grace=2,
        shutdown_grace=5,
    )
    began = time.monotonic()
    with fleet:
        load = Load(
            fleet.settings,
            [f"storm:{number}" for number in range(plan.open_turns)],
            turns=plan.turns,
            open_turns=plan.open_turns,
            seed=plan.seed,
            longest=plan.longest_tool,
        )
        with RecoveryClock(fleet.redis_url) as clock, load:
            lost = blow(fleet, load, clock, plan, console)
        findings = check(fleet.redis_url, load.accepted, ledger)
    problems = [f"{name}: {what[:5]}" for name, what in findings.zeros.items() if what]
    if not load.done or load.error is not None:
        problems.append(f"{len(load.open)} turns have not ended: {load.error!r}")
    return StormOutcome(
        plan=plan,
        findings=findings,
        turns=len(load.accepted),
        lost=lost,
        recovery=clock.seconds["machine lost"],
        elapsed=time.monotonic() - began,
        problems=problems,
    )


def blow(fleet: Fleet, load: Load, clock: RecoveryClock, plan: StormPlan, console: Console) -> int:
    """Lose machines until the time is up, then let all turns end; returns how many were lost."""
    chance = random.Random(plan.seed)
    began = time.monotonic()
    deadline = began + plan.seconds + 120 + plan.turns / 4
    lost = 0
    due = plan.every
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("turns", total=plan.turns)
        while not load.done and load.error is None and time.monotonic() < deadline:
            now = time.monotonic() - began
            fleet.replace_dead()
            if now > plan.seconds:
                load.finish()
            elif now > due:
                due += plan.every
                lost += lose_one(fleet, load, clock, chance)
            ended = len(load.accepted) - len(load.open)
            progress.update(task, completed=ended, description=f"{lost} machines lost")
            time.sleep(0.02)
    return lost


def lose_one(fleet: Fleet, load: Load, clock: RecoveryClock, chance: random.Random) -> int:
    """Lose one of those that take turns, if there is any; returns how many were lost.

    One that is still starting runs no turns: to lose it would spare them.
    """
    ready = [worker for worker in fleet.workers if is_ready(worker)]
    if not ready:
        return 0
    victim = chance.choice(ready)
    try:
        running = clock.running_on(victim.name, list(load.open))
    except redis.RedisError:
        running = {}
    lose_machine(fleet, victim)
    clock.start("machine lost", running)
    fleet.start_worker()
    return 1


def report(outcome: StormOutcome, console: Console) -> None:
    """Print what became of them, and write it down if that was asked for."""
    plan, findings = outcome.plan, outcome.findings
    waits = str(spread(outcome.recovery))
    table = Table("what", "figure", title=f"storm: seed {plan.seed}")
    rows = {
        "turns": str(outcome.turns),
        "seconds": f"{outcome.elapsed:.0f}",
        "machines lost": str(outcome.lost),
        "turns taken over": str(findings.takeovers),
        "waited for another worker: median / 99th / max": waits,
    }
    for name, figure in rows.items():
        table.add_row(name, figure)
    table.add_section()
    for name, what in findings.zeros.items():
        table.add_row(name, f"[red]{len(what)}" if what else "[green]0")
    console.print(table)
    for problem in outcome.problems:
        console.print(f"[red]{problem}")
    if plan.publish:
        publish(
            "storm",
            [
                f"{plan.workers} workers, one lost every {plan.every:g} s for {plan.seconds:g} s",
                f"{outcome.turns:,}",
                str(outcome.lost),
                str(findings.takeovers),
                str(len(findings.failed)),
                waits,
            ],
        )
