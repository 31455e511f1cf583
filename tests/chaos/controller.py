"""The controller: starts a stack, injects random faults from a seed, and checks the result."""

from __future__ import annotations

import random
import time
from typing import Final

from rich.console import Console
from rich.progress import Progress

from tests.chaos.checker import Findings, Watcher, check
from tests.chaos.fleet import Fleet
from tests.chaos.harm import Harm, Scene
from tests.chaos.load import Load
from tests.chaos.plan import FAULTS, Outcome, Plan, settled
from tests.chaos.recovery import RecoveryClock
from tests.chaos.servers import Servers
from tests.chaos.skew import Skew, release

SECONDS_A_FAULT: Final = {"store": 8, "valkey": 8, "rabbitmq": 20}
"""Additional seconds that a run may take for each fault. An Erlang node takes seconds to start."""


def run(plan: Plan, console: Console) -> Outcome:
    """Carry a plan out.

    Raises:
        ValueError: The servers do not support the faults.
        Missing: A server is not installed.
    """
    plan = settled(plan)
    with Servers(plan) as servers:
        return _Run(plan, console, servers).run()


class _Run:
    """One run on running servers."""

    def __init__(self, plan: Plan, console: Console, servers: Servers) -> None:
        self._plan = plan
        self._console = console
        self._servers = servers
        self._chance = random.Random(plan.seed)
        self._ledger = plan.folder / "ledger.jsonl"
        self._traps = plan.folder / "traps"
        self._ledger.touch()
        self._traps.mkdir()
        self._conversations = [f"chaos:{number}" for number in range(plan.conversations)]
        self._fleet = Fleet(
            plan.folder,
            agents=("tests.chaos.agents",),
            workers=0,
            flower=False,
            redis_url=servers.url,
            env={
                "CHAOS_LEDGER": str(self._ledger),
                "CHAOS_TRAPS": str(self._traps),
            },
            broker_url=servers.broker_url,
            lease_ttl=plan.lease,
            heartbeat=plan.heartbeat,
            # In the same proportion to the lease as the defaults.
            dispatch_grace=plan.lease / 2,
            sweep_interval=min(1.0, plan.lease / 4),
            shutdown_grace=0,
        )

    def run(self) -> Outcome:
        """Run load and faults until all turns have ended."""
        plan, servers = self._plan, self._servers
        load = Load(
            self._fleet.settings,
            self._conversations,
            turns=plan.turns,
            open_turns=plan.open_turns,
            seed=plan.seed,
            longest=plan.longest_tool,
        )
        began = time.monotonic()
        with self._fleet, RecoveryClock(servers.url) as clock:
            skew = Skew(self._fleet.settings, servers.url, plan.seed)
            harm = Harm(
                Scene(
                    plan=plan,
                    servers=servers,
                    fleet=self._fleet,
                    clock=clock,
                    chance=self._chance,
                    skew=skew,
                    traps=self._traps,
                    old_release=release(plan.old_version, plan.folder / "old"),
                    open_turns=lambda: list(load.open),
                )
            )
            harm.start(plan.workers)
            self._fleet.wait_for_workers(plan.workers)
            with Watcher(servers.url, self._conversations) as watcher, load:
                try:
                    self._harm(harm, load)
                finally:
                    harm.end()
            problems = skew.close()
        # Check after all workers have ended, when nothing can change any more.
        losses = servers.losses
        servers.read_again()
        findings = check(servers.url, load.accepted, self._ledger, losses)
        findings.half_visible += watcher.half_visible
        logs = [log.read_text(errors="replace") for log in plan.folder.glob("logs/worker*.log")]
        return Outcome(
            plan=plan,
            findings=findings,
            faults=harm.done,
            recovery=clock.seconds,
            elapsed=time.monotonic() - began,
            zombies=sum(log.count("turn.lost") for log in logs),
            turns=len(load.accepted),
            repeats=load.repeats,
            reads=watcher.reads,
            ended_themselves=harm.ended_themselves,
            losses=losses,
            problems=[*problems, *self._problems(load, harm, logs), *zeros(findings)],
        )

    def _problems(self, load: Load, harm: Harm, logs: list[str]) -> list[str]:
        found = [f"a worker wrote a traceback: {line}" for line in map(traceback_in, logs) if line]
        if not load.done or load.error is not None:
            ended = len(load.accepted) - len(load.open)
            found.append(f"only {ended} of {len(load.accepted)} turns ended: {load.error!r}")
        # A worker whose loop is blocked or whose watchdog is gone must be restarted.
        causes = harm.done["event loop blocked"] + harm.done["watchdog killed"]
        if harm.ended_themselves > causes:
            found.append(f"{harm.ended_themselves} workers ended themselves, {causes} with cause")
        return found

    def _harm(self, harm: Harm, load: Load) -> None:
        """Inject faults, spread over the turns, until all turns have ended."""
        plan = self._plan
        kinds = [fault for name, fault in FAULTS.items() for _ in range(getattr(plan, name))]
        self._chance.shuffle(kinds)
        spacing = plan.turns * 0.9 / max(1, len(kinds))
        deadline = (
            time.monotonic() + 180 + plan.turns / 5 + len(kinds) * SECONDS_A_FAULT[plan.broker]
        )
        done = 0
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task(f"seed {plan.seed}", total=plan.turns)
            while not load.done and load.error is None and time.monotonic() < deadline:
                ended = len(load.accepted) - len(load.open)
                progress.update(
                    task, completed=ended, description=f"seed {plan.seed}: {done} faults"
                )
                harm.look()
                if done == len(kinds):
                    load.finish()
                elif ended >= spacing * done:
                    done += harm.do(kinds[done])
                time.sleep(0.02)


def zeros(findings: Findings) -> list[str]:
    """The findings that should be zero and are not."""
    return [f"{name}: {what[:5]}" for name, what in findings.zeros.items() if what]


def traceback_in(log: str) -> str:
    """The last line of the first traceback from agentapi's own code, if any."""
    for part in log.split("Traceback (most recent call last)")[1:]:
        if "Unrecoverable error" in log or "/workers/" in part:
            return part.strip().splitlines()[-1]
    return ""
