"""One soak: a stack, a load, faults, gauges, and what they say in the end."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis
from rich.console import Console
from rich.progress import Progress

from agentapi import Settings
from agentapi.redis.aio import connect
from orchestrator.gateway.tenants.keys import KeyStore
from tests.chaos.fleet import Fleet, is_ready
from tests.chaos.options import option
from tests.soak.gauges import Series, count_keys, marked, measure_helpers, measure_process, patterns
from tests.soak.harm import Harm
from tests.soak.load import MixedLoad
from tests.soak.trend import Bound, Trend

LONG: Final = 600.0
"""Seconds from which on a run shows whether a process grows."""

PROCESSES_END_WITHIN: Final = 60.0
"""Seconds after the load in which all processes that are not needed must have ended."""

BOUNDS: Final[Mapping[str, Bound]] = {
    "memory": Bound(absolute=12, relative=0.1),
    "files": Bound(absolute=8, relative=0.1),
    "threads": Bound(absolute=4, relative=0.05),
    "tasks": Bound(absolute=8, relative=0.1),
    "processes": Bound(absolute=0.5),
    "keys": Bound(absolute=200, relative=0.15),
}
"""What may grow by how much between the warm-up and the end."""


@dataclass(frozen=True, kw_only=True)
class SoakPlan:
    """A mixed load with faults for a given time; fails when anything grows."""

    folder: Path
    minutes: float = option(10.0, "how long")
    seed: int = option(1, "decides what clients do and what breaks")
    rate: float = option(6.0, "visits a second")
    workers: int = option(2, "workers that are never lost; one more is, again and again")
    fault_every: float = option(60.0, "seconds between two faults; 0 for none")
    publish: bool = option(False, "write the curves and the table into docs/")

    @property
    def seconds(self) -> float:
        """How long the load lasts."""
        return self.minutes * 60

    @property
    def retention(self) -> float:
        """Seconds that ended turns, and idle conversations, are kept."""
        return min(60.0, max(6.0, self.seconds / 10))


@dataclass
class SoakOutcome:
    """What was done and measured."""

    plan: SoakPlan
    series: Series
    trends: dict[tuple[str, str], Trend]
    visits: Counter[str]
    refused: Counter[str]
    faults: Counter[str]
    fault_times: list[float]
    left: dict[str, int]
    problems: list[str] = field(default_factory=list)


class Soak:
    """One run."""

    def __init__(self, plan: SoakPlan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._gauges = plan.folder / "gauges"
        self._series = Series()
        self._left_behind: set[str] = set()
        self._measured = 0.0

    def run(self) -> SoakOutcome:
        """Run it to its end."""
        plan = self._plan
        self._gauges.mkdir(parents=True)
        fleet = Fleet(
            plan.folder,
            agents=("tests.soak.agents",),
            workers=plan.workers + 1,
            flower=False,
            gateway=True,
            env={"SOAK_GAUGES": str(self._gauges)},
            **settings_of(plan),
        )
        with fleet:
            keys = [make_key(fleet.settings, tenant) for tenant in ("acme", "globex")]
            *veterans, victim = fleet.workers
            harm = Harm(fleet, victim, seed=plan.seed, every=plan.fault_every)
            assert fleet.gateway_url is not None
            load = MixedLoad(
                fleet.settings, fleet.gateway_url, keys, rate=plan.rate, seed=plan.seed
            )
            pids = {worker.name: worker.pid for worker in veterans}
            assert fleet.gateway is not None
            pids |= {"gateway": fleet.gateway.pid, "producer": os.getpid()}
            self._series = Series()
            processes = len(self._processes())
            with load:
                self._watch(fleet, load, harm, pids)
            left = self._settle(fleet)
            problems = self._left_running(processes)
            problems += [f"{child.name} ended by itself" for child in fleet.replace_dead()]
        trends = self._series.trends(BOUNDS)
        problems += self._problems(load, trends, left)
        return SoakOutcome(
            plan=plan,
            series=self._series,
            trends=trends,
            visits=load.done,
            refused=load.refused,
            faults=harm.done,
            fault_times=[at - self._series.began for at, _ in harm.at],
            left=left,
            problems=problems,
        )

    def _watch(self, fleet: Fleet, load: MixedLoad, harm: Harm, pids: Mapping[str, int]) -> None:
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task("soak", total=self._plan.seconds)
            while self._series.elapsed < self._plan.seconds:
                self._measure(fleet, pids)
                harm.look()
                progress.update(
                    task,
                    completed=self._series.elapsed,
                    description=f"{load.visits} visits, {sum(harm.done.values())} faults, "
                    f"{sum(load.wrong.values())} wrong",
                )
                time.sleep(0.2)

    def _measure(self, fleet: Fleet, pids: Mapping[str, int]) -> None:
        every = max(1.0, self._plan.seconds / 400)
        if time.monotonic() - self._measured < every:
            return
        self._measured = time.monotonic()
        series = self._series
        for subject, pid in pids.items():
            measure_process(series, subject, pid, self._gauges)
            if subject.startswith("worker"):
                measure_helpers(series, subject, pid)
        # Its clients' threads are the load's own.
        series.add("threads", "producer", len(threads_besides("soak")))
        ours = self._processes()
        if all(is_ready(worker) for worker in fleet.workers):
            series.add("processes", "workers and all beside them", len(ours))
        try:
            keys = count_keys(fleet.redis_url)
            series.add("memory", "Valkey's data", used_memory(fleet.redis_url))
        except redis.RedisError:
            return
        series.add("keys", "that expire", keys.expiring)
        series.add("keys", "that do not expire", keys.lasting)
        self._left_behind |= set(keys.left_behind)

    def _processes(self) -> list[int]:
        """All processes of the fleet, and those that they started."""
        return marked("SOAK_GAUGES", str(self._gauges))

    def _left_running(self, before: int) -> list[str]:
        """Killed workers must leave nobody behind. What turns ran alone in has ended soon, too."""
        deadline = time.monotonic() + PROCESSES_END_WITHIN
        while (now := len(self._processes())) > before and time.monotonic() < deadline:
            time.sleep(0.5)
        return [f"{now} processes, and {before} before the load"] * (now > before)

    def _settle(self, fleet: Fleet) -> dict[str, int]:
        """Wait until all that was there has expired; returns what has not."""
        deadline = time.monotonic() + 60 + self._plan.retention * 4
        while (left := unfinished(fleet.redis_url)) and time.monotonic() < deadline:
            time.sleep(1)
        return patterns(left)

    def _problems(
        self, load: MixedLoad, trends: Mapping[tuple[str, str], Trend], left: Mapping[str, int]
    ) -> list[str]:
        found = list(load.problems)
        if load.visits == 0:
            found.append("nothing was done")
        found += [f"keys left behind: {patterns(tuple(self._left_behind))}"] * bool(
            self._left_behind
        )
        found += [f"keys that are still there: {left}"] * bool(left)
        for (kind, subject), one in trends.items():
            # A short run is all warm-up: pools and caches fill.
            if one.grows and self._plan.seconds >= LONG:
                found.append(
                    f"{kind} of {subject} grows: by {one.growth:.1f}, {one.allowed:.1f} allowed"
                )
        return found


def threads_besides(prefix: str) -> list[str]:
    """Names of this process's threads that do not begin so."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if not name.startswith(prefix)]


def settings_of(plan: SoakPlan) -> dict[str, Any]:
    """Of workers, gateway and producer: what has ended is soon forgotten."""
    return {
        "lease_ttl": 3,
        "heartbeat": 1,
        "dispatch_grace": 2,
        "shutdown_grace": 2,
        "turn_retention": plan.retention,
        "events_retention": plan.retention,
        "ends_retention": plan.retention,
        "memory_ttl": plan.retention,
        "approval_timeout": 5,
        "gateway_requests_per_minute": 60_000,
        "gateway_turns_in_flight": 5_000,
    }


def used_memory(url: str) -> float:
    """Megabytes of data that the server holds."""
    client: Any = redis.Redis.from_url(url, socket_timeout=10)
    used = float(client.info("memory")["used_memory"]) / 2**20
    client.close()
    return used


def unfinished(url: str) -> list[str]:
    """Keys of turns, conversations and of what is due; in the end there are none."""
    client: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=10)
    names = [
        name
        for name in client.scan_iter(match="agentapi:*", count=1000)
        if name.startswith("agentapi:{") and name[14:17] in (":t:", ":c:", ":du")
    ]
    client.close()
    return names


def make_key(settings: Settings, tenant: str) -> str:
    """A tenant's key for the gateway."""

    async def make() -> str:
        client = connect(settings, connections=1)
        try:
            return (await KeyStore(settings, client).create(tenant, "soak"))[1]
        finally:
            await client.aclose()

    return asyncio.run(make())


def run(plan: SoakPlan, console: Console) -> SoakOutcome:
    """Carry a plan out."""
    return Soak(plan, console).run()
