"""Turns that kill their process, among innocent ones: who fails, who waits, who dies."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agentapi.errors import StoreUnavailable
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Child, start_valkey
from orchestrator.turn_request import TurnRequest
from tests.chaos.checker import AcceptedTurn, Findings, check
from tests.chaos.figures import Spread, publish, spread
from tests.chaos.fleet import Fleet
from tests.chaos.memory import MemoryLimits
from tests.chaos.options import option

WEAPONS = {"kill": "/die", "oom": "/devour", "crash": "/crash"}


@dataclass(frozen=True, kw_only=True)
class PoisonPlan:
    """Turns that kill their worker, among turns of others, on workers that are restarted."""

    folder: Path
    seed: int = option(1, "decides where the poison is")
    innocents: int = option(60, "turns that do no harm")
    seconds: float = option(2.0, "how long each of them takes")
    poison: int = option(1, "turns that kill their process")
    weapon: str = option("kill", "how: kill (SIGKILL), oom (memory), crash (a null pointer)")
    workers: int = option(2, "worker processes")
    memory: int = option(1000, "megabytes a worker may have with all beside it, for oom")
    control: bool = option(False, "run the innocents alone first, to know what they wait for")
    publish: bool = option(False, "write the figures into docs/reliability.md")


@dataclass
class PoisonOutcome:
    """What became of them."""

    plan: PoisonPlan
    findings: Findings
    deaths: list[int]
    executions: int
    waits: list[float]
    control: list[float]
    problems: list[str] = field(default_factory=list)

    @property
    def added(self) -> Spread | None:
        """Seconds that the poison cost the innocents, each beside its twin in the control."""
        pairs = zip(self.waits, self.control, strict=False)
        return spread([poisoned - alone for poisoned, alone in pairs])


def run(plan: PoisonPlan, console: Console) -> PoisonOutcome:
    """Carry a plan out on a fleet of its own."""
    ledger = plan.folder / "ledger.jsonl"
    plan.folder.mkdir(parents=True, exist_ok=True)
    ledger.touch()
    valkey, url = start_valkey(plan.folder)
    limits = MemoryLimits(plan.memory * 2**20) if plan.weapon == "oom" else None
    fleet = LimitedFleet(
        plan.folder,
        agents=("tests.chaos.agents",),
        workers=plan.workers,
        flower=False,
        redis_url=url,
        env={"CHAOS_LEDGER": str(ledger)},
        lease_ttl=2,
        heartbeat=0.5,
        dispatch_grace=2,
        shutdown_grace=5,
    )
    fleet.valkey, fleet.limits = valkey, limits
    control: list[float] = []
    deaths: list[int] = []
    with fleet, Orchestrator(fleet.settings) as orchestrator:
        if plan.control:
            innocents = enqueue(orchestrator, plan, poison=0, name="control")[0]
            watch(fleet, innocents, plan, console)
            control = waits(innocents)
        innocents, guilty = enqueue(orchestrator, plan, poison=plan.poison, name="poison")
        deaths = watch(fleet, [*innocents, *guilty], plan, console)
        waited = waits(innocents)
        problems = wrong_ends(guilty)
        accepted = [AcceptedTurn(turn.conversation_id, turn.turn_id) for turn in innocents]
        findings = check(url, accepted, ledger)
    if limits is not None:
        limits.close()
        if limits.kills == 0:
            problems.append("nobody was killed for want of memory: it has shown nothing")
    problems += [f"{name}: {what[:5]}" for name, what in findings.zeros.items() if what]
    if len(deaths) > 2 * plan.poison:
        problems.append(f"{plan.poison} poison turns took {len(deaths)} workers with them")
    return PoisonOutcome(
        plan=plan,
        findings=findings,
        deaths=deaths,
        executions=sum(
            f'"kind": "{WEAPONS[plan.weapon][1:]}"' in line
            for line in ledger.read_text().splitlines()
        ),
        waits=waited,
        control=control,
        problems=problems,
    )


class LimitedFleet(Fleet):
    """A fleet whose workers have so much memory and no more."""

    limits: MemoryLimits | None = None

    def start_worker(self, env: Mapping[str, str] | None = None) -> Child:
        worker = super().start_worker(env)
        if self.limits is not None:
            self.limits.keep(worker)
        return worker


def enqueue(
    orchestrator: Orchestrator, plan: PoisonPlan, *, poison: int, name: str
) -> tuple[list[TurnHandle], list[TurnHandle]]:
    """All at once; the poison at random among the innocents."""
    chance = random.Random(plan.seed)
    guilty = set(chance.sample(range(plan.innocents + poison), poison))
    requests = [
        TurnRequest(
            agent="chaos",
            message=WEAPONS[plan.weapon]
            if number in guilty
            else f'/{chance.choice(("work", "charge"))} {{"seconds": {plan.seconds}}}',
            conversation_id=f"{name}:{number}",
        )
        for number in range(plan.innocents + poison)
    ]
    handles = orchestrator.enqueue_many(requests)
    return (
        [handle for number, handle in enumerate(handles) if number not in guilty],
        [handle for number, handle in enumerate(handles) if number in guilty],
    )


def watch(
    fleet: Fleet, handles: Sequence[TurnHandle], plan: PoisonPlan, console: Console
) -> list[int]:
    """Start workers that die again until all turns have ended; returns how those ended."""
    waiting = list(handles)
    deaths: list[int] = []
    deadline = time.monotonic() + 120 + 20 * plan.poison + plan.innocents * plan.seconds / 4
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("turns", total=len(handles))
        while waiting and time.monotonic() < deadline:
            deaths += [worker.exit_code or 0 for worker in fleet.replace_dead()]
            try:
                waiting = [handle for handle in waiting if not handle.status().ended]
            except StoreUnavailable:
                continue
            progress.update(
                task,
                completed=len(handles) - len(waiting),
                description=f"{len(deaths)} workers died",
            )
            time.sleep(0.1)
    return deaths


def waits(handles: Sequence[TurnHandle]) -> list[float]:
    """Seconds from acceptance to the end, of those that have ended."""
    turns = [handle.info() for handle in handles]
    return [turn.ended_at - turn.created_at for turn in turns if turn.ended_at is not None]


def wrong_ends(guilty: Sequence[TurnHandle]) -> list[str]:
    """Poison that did not end as such."""
    turns = [handle.info() for handle in guilty]
    return [
        f"the poison turn {turn.turn_id} is {turn.status}: {turn.error}"
        for turn in turns
        if turn.error is None or turn.error.code != "poison"
    ]


def report(outcome: PoisonOutcome, console: Console) -> None:
    """Print what became of them, and write it down if that was asked for."""
    plan = outcome.plan
    table = Table("what", "figure", title=f"poison: {plan.weapon}, seed {plan.seed}")
    failed = len(outcome.findings.failed)
    rows = {
        "innocents": str(plan.innocents),
        "innocents failed": str(failed),
        "poison turns": str(plan.poison),
        "workers": str(plan.workers),
        "workers that died": f"{len(outcome.deaths)} {outcome.deaths}",
        "times that poison ran": str(outcome.executions),
        "innocents' whole time: median / 99th / max": str(spread(outcome.waits)),
        "of that, added by the poison": str(outcome.added) if outcome.control else "not measured",
        "turns taken over": str(outcome.findings.takeovers),
    }
    for name, figure in rows.items():
        table.add_row(name, figure)
    console.print(table)
    for problem in outcome.problems:
        console.print(f"[red]{problem}")
    if plan.publish and outcome.added is not None:
        added = outcome.added
        publish(
            "poison",
            [
                f"{plan.innocents} innocents, {plan.poison} poison ({plan.weapon}), "
                f"{plan.workers} workers",
                str(failed),
                f"{added.median:.1f} / {added.largest:.1f} s",
                str(len(outcome.deaths)),
                str(outcome.executions),
            ],
        )
