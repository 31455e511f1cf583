"""A provider that is away in the middle of many turns: none may fail, and few may ask it."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agentapi.turns import TERMINAL
from orchestrator import Orchestrator, TurnHandle
from orchestrator.turn_request import TurnRequest
from tests.chaos.checker import AcceptedTurn, Findings, check, turn_key
from tests.chaos.figures import Spread, publish, spread
from tests.chaos.fleet import Fleet, lose_machine
from tests.chaos.options import option
from tests.faults import worker_of

AWAY_VARIABLE = "CHAOS_AWAY"
"""Names the file that makes the provider of `tests.chaos.agents` be away."""

KNOWN_AFTER = 3
"""Seconds of an outage in which workers, on a busy machine too, make the calls that are not
avoidable: those that begin before anybody knows of it."""

MORE = 60.0
"""Seconds by which an outage is longer at most, until there is a worker to lose."""

LATER = 0.1
"""The part of the turns that is enqueued during the outage."""


@dataclass(frozen=True, kw_only=True)
class OutagePlan:
    """A provider that is away for a while, in the middle of many turns."""

    folder: Path
    seed: int = option(1, "decides how long the tools take")
    turns: int = option(1000, "turns, each in a conversation of its own, with two model calls")
    workers: int = option(2, "worker processes")
    seconds: float = option(600.0, "how long the provider is away")
    how: str = option("refused", "how: refused (at once), hangs (until a timeout)")
    kill: bool = option(False, "lose the machine of the worker that asks for all, once")
    within: float = option(60.0, "seconds after its return in which all turns must have ended")
    publish: bool = option(False, "write the figures into docs/reliability.md")


@dataclass
class OutageOutcome:
    """What became of the turns, and how often the provider was asked while it was away."""

    plan: OutagePlan
    findings: Findings
    before: int
    requests: int
    at_once: int
    later: int
    busiest: int
    parks: int
    losses: int
    lasted: float
    waits: list[float]
    problems: list[str] = field(default_factory=list)

    @property
    def after(self) -> Spread | None:
        """Seconds from the provider's return to the ends of the turns that it kept waiting."""
        return spread(self.waits)


def run(plan: OutagePlan, console: Console) -> OutageOutcome:
    """Carry a plan out on a fleet of its own."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    ledger, away = plan.folder / "ledger.jsonl", plan.folder / "away"
    ledger.touch()
    fleet = Fleet(
        plan.folder,
        agents=("tests.chaos.agents",),
        workers=plan.workers,
        flower=False,
        env={"CHAOS_LEDGER": str(ledger), AWAY_VARIABLE: str(away)},
    )
    with fleet, Orchestrator(fleet.settings) as orchestrator:
        client = redis.Redis.from_url(fleet.redis_url, decode_responses=True)
        outage = _Outage(plan, fleet, orchestrator, client, away)
        outage.carry_out(console)
        turns = [handle.info() for handle in outage.handles]
        accepted = [AcceptedTurn(turn.conversation_id, turn.turn_id) for turn in turns]
        findings = check(fleet.redis_url, accepted, ledger)
        client.close()
    asked = requests(ledger, outage.began)
    waits = [turn.ended_at - outage.returned for turn in turns if turn.ended_at is not None]
    outcome = OutageOutcome(
        plan=plan,
        findings=findings,
        before=sum(1 for wait in waits if wait < 0),
        requests=sum(asked.values()),
        at_once=asked[0],
        later=sum(count for second, count in asked.items() if second >= KNOWN_AFTER),
        busiest=max((count for second, count in asked.items() if second > 0), default=0),
        parks=sum(turn.parks for turn in turns),
        losses=sum(turn.losses for turn in turns),
        lasted=outage.lasted,
        waits=[wait for wait in waits if wait >= 0],
    )
    outcome.problems = problems(outcome, unended=len(turns) - len(waits))
    return outcome


def problems(outcome: OutageOutcome, *, unended: int) -> list[str]:
    """What a plan's outcome must not show."""
    plan, found = outcome.plan, outcome.findings
    wrong = [f"{name}: {what[:5]}" for name, what in found.zeros.items() if what]
    if plan.kill and not outcome.losses:
        wrong.append("no turn has lost its worker: it has shown nothing")
    if unended:
        wrong.append(f"{unended} turns have not ended")
    if outcome.before == 0 or outcome.before == plan.turns:
        wrong.append("the outage was not in the middle of the turns: it has shown nothing")
    if (slowest := max(outcome.waits, default=0.0)) > plan.within:
        wrong.append(f"the last turn ended {slowest:.0f} s after the provider's return")
    if outcome.later > outcome.lasted:
        wrong.append(
            f"{outcome.later} requests in {outcome.lasted:.0f} s went to a provider that was away"
        )
    return wrong


def requests(ledger: Path, began: float) -> Counter[int]:
    """How many requests reached the provider while it was away, by the second of the outage."""
    lines = (json.loads(line) for line in ledger.read_text().splitlines())
    return Counter(
        max(0, math.floor(line["at"] - began)) for line in lines if line["kind"] == "asked"
    )


@dataclass
class _Outage:
    plan: OutagePlan
    fleet: Fleet
    orchestrator: Orchestrator
    client: redis.Redis
    away: Path
    handles: list[TurnHandle] = field(default_factory=list)
    began: float = 0.0
    lasted: float = 0.0
    returned: float = 0.0
    """When the provider was back, by Redis's clock."""

    def carry_out(self, console: Console) -> None:
        later = round(self.plan.turns * LATER)
        self.enqueue(self.plan.turns - later)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("before the outage", total=self.plan.turns)
            while (ended := self.ended()) < self.plan.turns // 4:
                progress.update(task, completed=ended)
                time.sleep(0.05)
            self.away.write_text(self.plan.how)
            self.began = time.monotonic()
            self.endure(later, lambda: progress.update(task, completed=self.ended()))
            self.away.unlink()
            seconds, micros = self.client.time()
            self.returned = seconds + micros / 1e6
            progress.update(task, description="after it")
            until = time.monotonic() + 2 * self.plan.within + 30
            while (ended := self.ended()) < self.plan.turns and time.monotonic() < until:
                progress.update(task, completed=ended)
                time.sleep(0.2)

    def endure(self, later: int, show: Any) -> None:
        """Let the outage pass; the rest of the turns come in its first half."""
        left, killed = later, not self.plan.kill
        while self.lasts(elapsed := time.monotonic() - self.began, killed):
            part = min(1.0, elapsed / self.plan.seconds)
            due = later - round(later * min(1.0, 2 * part))
            if left > due:
                self.enqueue(left - due)
                left = due
            if not killed and part > 0.4 and (owner := self.running_on()):
                killed = True
                lose_machine(self.fleet, worker_of(self.fleet, owner))
                self.fleet.start_worker()
            show()
            time.sleep(0.2)
        self.lasted = time.monotonic() - self.began

    def lasts(self, elapsed: float, killed: bool) -> bool:
        """Whether the outage is to go on: until its end, and until its worker was lost."""
        return elapsed < self.plan.seconds + (0 if killed else MORE)

    def running_on(self) -> str | None:
        """The worker of a turn that runs: of the one that asks for all, or is about to."""
        pipeline = self.client.pipeline(transaction=False)
        for handle in self.handles:
            pipeline.hmget(turn_key(handle.turn_id), ["status", "worker"])
        found: Sequence[Sequence[str]] = pipeline.execute()
        return next((worker for status, worker in found if status == "running"), None)

    def enqueue(self, count: int) -> None:
        chance = random.Random(f"{self.plan.seed}:{len(self.handles)}")
        self.handles += self.orchestrator.enqueue_many(
            [
                TurnRequest(
                    agent="patient",
                    message=f'/work {{"seconds": {chance.uniform(0, 1):.2f}}}',
                    conversation_id=f"outage:{len(self.handles) + number}",
                )
                for number in range(count)
            ]
        )

    def ended(self) -> int:
        pipeline = self.client.pipeline(transaction=False)
        for handle in self.handles:
            pipeline.hget(turn_key(handle.turn_id), "status")
        found: Sequence[str | None] = pipeline.execute()
        return sum(status in TERMINAL for status in found)


def report(outcome: OutageOutcome, console: Console) -> None:
    """Print what became of them, and write it down if that was asked for."""
    plan, findings = outcome.plan, outcome.findings
    table = Table("what", "figure", title=f"outage: {plan.how}, seed {plan.seed}")
    rows = {
        "turns": str(plan.turns),
        "ended before or during the outage": str(outcome.before),
        "failed": str(len(findings.failed)),
        "seconds that the provider was away": f"{plan.seconds:g}",
        "requests to it meanwhile": str(outcome.requests),
        "of them in the first second": str(outcome.at_once),
        "most in any later second": str(outcome.busiest),
        "times that turns parked": str(outcome.parks),
        "turns that lost their worker": str(outcome.losses),
        "ended after its return: median / 99th / max": str(outcome.after),
    }
    for name, figure in rows.items():
        table.add_row(name, figure)
    console.print(table)
    for problem in outcome.problems:
        console.print(f"[red]{problem}")
    if plan.publish:
        lost = ", a worker lost" if plan.kill else ""
        publish(
            "outage",
            [
                f"{plan.turns:,} turns, {plan.workers} workers, {plan.seconds:g} s "
                f"({plan.how}{lost})",
                str(len(findings.failed)),
                f"{outcome.requests} ({outcome.requests / plan.seconds:.2f} a second)",
                f"{outcome.at_once} / {outcome.busiest}",
                str(outcome.after),
            ],
        )
