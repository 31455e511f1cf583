"""The controller: starts a stack, does it harm at random from a seed, and has it checked."""

from __future__ import annotations

import platform
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from orchestrator.stack import Child, Stack, start_valkey
from tests.chaos.checker import Findings, Watcher, check
from tests.chaos.load import Load
from tests.chaos.recovery import RecoveryClock
from tests.faults import flush_broker, kill, port_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, all of it decided by the seed."""

    folder: Path
    seed: int
    turns: int = 600
    kills: int = 12
    workers: int = 3
    conversations: int = 60
    open_turns: int = 120
    longest_tool: float = 0.6
    lease_ttl: float = 2.0
    heartbeat: float = 0.5
    redis_restarts: int = 2
    broker_flushes: int = 2


@dataclass
class Outcome:
    """What was done, what it did, and what the checker found."""

    plan: Plan
    findings: Findings
    faults: Counter[str]
    recovery: dict[str, list[float]]
    elapsed: float
    zombies: int
    turns: int
    repeats: int
    reads: int
    problems: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not self.problems


class Chaos:
    """One run."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._random = random.Random(plan.seed)
        self._faults: Counter[str] = Counter()
        self._asleep: dict[Child, float] = {}
        self._leaving: list[Child] = []

    def run(self) -> Outcome:
        plan = self._plan
        conversations = [f"chaos:{number}" for number in range(plan.conversations)]
        ledger = plan.folder / "ledger.jsonl"
        plan.folder.mkdir(parents=True, exist_ok=True)
        ledger.touch()
        valkey, url = start_valkey(plan.folder, fsync="always")
        started = time.monotonic()
        stack = Stack(
            plan.folder,
            agents=("tests.chaos.agents",),
            workers=plan.workers,
            flower=False,
            redis_url=url,
            env={"CHAOS_LEDGER": str(ledger)},
            lease_ttl=plan.lease_ttl,
            heartbeat=plan.heartbeat,
            dispatch_grace=2,
            shutdown_grace=0,
            # A turn may meet several kills here; poison has tests of its own.
            max_attempts=1000,
        )
        stack.valkey = valkey
        load = Load(
            stack.settings,
            conversations,
            turns=plan.turns,
            open_turns=plan.open_turns,
            seed=plan.seed,
            longest=plan.longest_tool,
        )
        with stack, Watcher(url, conversations) as watcher, RecoveryClock(url) as clock, load:
            try:
                self._harm(stack, load, clock)
            finally:
                for sleeper in list(self._asleep):
                    self._wake(stack, sleeper)
                for worker in self._leaving:
                    worker.finish(timeout=30)
        # Checked with all workers gone: nothing can still change.
        valkey, url = start_valkey(plan.folder, port_of(stack))
        findings = check(url, load.accepted, ledger)
        findings.half_visible += watcher.half_visible
        valkey.stop()
        problems = [f"{name}: {what[:5]}" for name, what in findings.zeros.items() if what]
        if not load.done or load.error is not None:
            ended = len(load.accepted) - len(load.open)
            problems.append(f"only {ended} of {plan.turns} turns have ended: {load.error!r}")
        logs = [log.read_text(errors="replace") for log in plan.folder.glob("logs/worker*.log")]
        problems += [f"a worker wrote a traceback: {t}" for t in map(traceback_in, logs) if t]
        return Outcome(
            plan=plan,
            findings=findings,
            faults=self._faults,
            recovery=clock.seconds,
            elapsed=time.monotonic() - started,
            zombies=sum(log.count("turn.lost") for log in logs),
            turns=len(load.accepted),
            repeats=load.repeats,
            reads=watcher.reads,
            problems=problems,
        )

    def _harm(self, stack: Stack, load: Load, clock: RecoveryClock) -> None:
        """Faults, spread over the turns, until all turns have ended."""
        plan = self._plan
        kinds = ["kill"] * plan.kills + ["restart redis"] * plan.redis_restarts
        kinds += ["flush broker"] * plan.broker_flushes
        self._random.shuffle(kinds)
        spacing = plan.turns * 0.9 / len(kinds)
        deadline = time.monotonic() + 120 + plan.turns / 5 + plan.kills * 5
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task(f"seed {plan.seed}", total=plan.turns)
            while not load.done:
                if load.error is not None or time.monotonic() > deadline:
                    return
                ended = len(load.accepted) - len(load.open)
                progress.update(
                    task,
                    completed=ended,
                    description=f"seed {plan.seed}: {sum(self._faults.values())} faults",
                )
                for sleeper, until in list(self._asleep.items()):
                    if time.monotonic() > until:
                        self._wake(stack, sleeper)
                done = sum(self._faults.values())
                if done == len(kinds):
                    load.finish()
                elif ended >= spacing * done:
                    self._fault(kinds[done], stack, load, clock)
                time.sleep(0.02)

    def _fault(self, kind: str, stack: Stack, load: Load, clock: RecoveryClock) -> None:
        if kind == "restart redis":
            assert stack.valkey is not None
            stack.valkey.kill()
            time.sleep(self._random.uniform(0, 1))
            stack.valkey, _ = start_valkey(self._plan.folder, port_of(stack), fsync="always")
        elif kind == "flush broker":
            flush_broker(stack.redis_url)
        else:
            self._remove_a_worker(stack, load, clock)
            return
        self._faults[kind] += 1

    def _remove_a_worker(self, stack: Stack, load: Load, clock: RecoveryClock) -> None:
        ready = [w for w in stack.workers if w not in self._asleep and is_ready(w)]
        if len(ready) < 2:
            return
        victim = self._random.choice(ready)
        cause = self._random.choices(
            ["kill -9", "machine lost", "paused beyond lease", "SIGTERM"], [70, 10, 10, 10]
        )[0]
        actions: dict[str, Callable[[], None]] = {
            "kill -9": lambda: kill(stack, victim),
            "machine lost": lambda: kill(stack, victim, machine=True),
            "paused beyond lease": lambda: self._pause(victim),
            "SIGTERM": lambda: self._terminate(stack, victim),
        }
        try:
            running = clock.running_on(victim.name, list(load.open))
        except redis.RedisError:
            return
        actions[cause]()
        clock.start(cause, running)
        stack.start_worker()
        self._faults[cause] += 1

    def _pause(self, victim: Child) -> None:
        victim.signal(signal.SIGSTOP)
        self._asleep[victim] = time.monotonic() + self._plan.lease_ttl + 2

    def _wake(self, stack: Stack, sleeper: Child) -> None:
        """Let it notice what it lost, and leave: another was started in its place."""
        del self._asleep[sleeper]
        sleeper.signal(signal.SIGCONT)
        time.sleep(0.5)
        self._terminate(stack, sleeper)

    def _terminate(self, stack: Stack, worker: Child) -> None:
        worker.signal(signal.SIGTERM)
        stack.workers.remove(worker)
        self._leaving.append(worker)


def is_ready(worker: Child) -> bool:
    return worker.exit_code is None and " ready." in worker.log.read_text(errors="replace")


def traceback_in(log: str) -> str:
    """The last line of the first traceback that our own code wrote, if any."""
    for part in log.split("Traceback (most recent call last)")[1:]:
        if "Unrecoverable error" in log or "/workers/" in part:
            return part.strip().splitlines()[-1]
    return ""


def report(outcome: Outcome, console: Console) -> None:
    """Print what was done and found."""
    plan, findings = outcome.plan, outcome.findings
    python = f"Python {platform.python_version()}"
    table = Table(title=f"chaos: seed {plan.seed}, {platform.system()}, {python}")
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_row("turns accepted", f"{outcome.turns:,}")
    table.add_row("seconds", f"{outcome.elapsed:.0f}")
    for fault, count in sorted(outcome.faults.items()):
        table.add_row(f"fault: {fault}", str(count))
    table.add_row("turns taken over", str(findings.takeovers))
    table.add_row("writes of zombies refused", str(outcome.zombies))
    table.add_row("calls whose outcome is unknown", str(findings.unknown_outcomes))
    table.add_row("enqueue calls repeated", str(outcome.repeats))
    table.add_row("histories read meanwhile", f"{outcome.reads:,}")
    table.add_section()
    for name, what in findings.zeros.items():
        table.add_row(name, f"[red]{len(what)}" if what else "[green]0")
    console.print(table)
    times = Table("recovery after", "turns", "median s", "99th s", "max s")
    for cause, seconds in sorted(outcome.recovery.items()):
        ordered = sorted(seconds)
        times.add_row(
            cause,
            str(len(ordered)),
            f"{statistics.median(ordered):.2f}",
            f"{ordered[max(0, round(len(ordered) * 0.99) - 1)]:.2f}",
            f"{ordered[-1]:.2f}",
        )
    console.print(times)
    for problem in outcome.problems:
        console.print(f"[red]{problem}")
