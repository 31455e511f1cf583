"""The faults of a random run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from orchestrator.stack import Child
from tests.chaos.checker import AWAY
from tests.chaos.clock import clock_off
from tests.chaos.fleet import Fleet, is_ready, lose_machine
from tests.chaos.plan import Plan
from tests.chaos.proxy import Network, Proxy
from tests.chaos.recovery import RecoveryClock
from tests.chaos.servers import Servers
from tests.chaos.skew import Skew
from tests.faults import kill, watchdogs

HOUR = 3600
SHARE_OF_OLD = 1 / 3
STUCK = 12.0
"""Seconds, in addition to its leases' time, after which a worker with a blocked loop has ended."""


@dataclass(kw_only=True)
class Scene:
    """The parts of a run that faults can affect.

    Attributes:
        open_turns: Ids of the waiting and running turns.
        ways: The proxies of each worker.
        later: Actions to take at a time by the monotonic clock, such as the end of a fault.
        leaving: Workers that were told to stop.
        old_release: Variables for a worker of another release, if there is one.
        unfit: Workers that are paused, blocked or cut off, and get no other fault.
    """

    plan: Plan
    servers: Servers
    fleet: Fleet
    clock: RecoveryClock
    chance: random.Random
    skew: Skew
    traps: Path
    open_turns: Callable[[], Iterable[str]]
    old_release: Mapping[str, str] = field(default_factory=dict)
    ways: dict[Child, list[Proxy]] = field(default_factory=dict)
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    leaving: list[Child] = field(default_factory=list)
    unfit: set[Child] = field(default_factory=set)


class Harm:
    """Injects faults, and ends those that last."""

    def __init__(self, scene: Scene) -> None:
        self.done: Counter[str] = Counter()
        self.ended_themselves = 0
        self._scene = scene
        self._faults: Mapping[str, Callable[[], str]] = {
            "kill": self._remove_a_worker,
            "Redis killed": self._restart_redis,
            "broker emptied": self._empty_broker,
            "failover": self._fail_over,
            "slot moved": self._move_a_slot,
            "shard stands still": self._stop_a_shard,
            "broker of its own away": self._break_broker,
            "event loop blocked": self._block_a_loop,
            "watchdog killed": self._kill_a_watchdog,
            "clock off by an hour": self._a_wrong_clock,
            "disk full": self._fill_disk,
            "network cut": self._cut_network,
            "newer release": self._a_newer_release,
        }

    def do(self, fault: str) -> bool:
        """Inject a fault; returns whether that was possible now."""
        name = self._faults[fault]()
        if name:
            self.done[name] += 1
        return bool(name)

    def look(self) -> None:
        """End faults that have lasted long enough; replace workers that ended by themselves."""
        scene = self._scene
        now = time.monotonic()
        over = [entry for entry in scene.later if entry[0] <= now]
        for entry in over:
            scene.later.remove(entry)
            entry[1]()
        dead = [worker for worker in scene.fleet.workers if worker.exit_code is not None]
        for worker in dead:
            scene.fleet.workers.remove(worker)
            scene.unfit.discard(worker)
            self.ended_themselves += 1
            self._start()

    def end(self) -> None:
        """End all faults, and wait for workers that were told to stop."""
        for _, restore in self._scene.later:
            restore()
        self._scene.later.clear()
        for worker in self._scene.leaving:
            worker.finish(timeout=30)

    def start(self, count: int) -> None:
        """Start the first workers."""
        for _ in range(count):
            self._start()

    def _start(self, env: Mapping[str, str] | None = None) -> Child:
        scene = self._scene
        way, proxies = scene.servers.way_in()
        old = scene.old_release if scene.chance.random() < SHARE_OF_OLD else {}
        worker = scene.fleet.start_worker({**way, **old, **(env or {})})
        scene.ways[worker] = proxies
        return worker

    def _victim(self) -> Child | None:
        """A healthy worker, if there are others."""
        scene = self._scene
        fit = [w for w in scene.fleet.workers if w not in scene.unfit and is_ready(w)]
        return scene.chance.choice(fit) if len(fit) >= 2 else None

    def _running_on(self, worker: Child) -> dict[str, int]:
        return self._scene.clock.running_on(worker.name, list(self._scene.open_turns()))

    def _remove_a_worker(self) -> str:
        victim = self._victim()
        if victim is None:
            return ""
        scene = self._scene
        cause = scene.chance.choices(
            ["kill -9", "machine lost", "paused beyond lease", "SIGTERM"], [70, 10, 10, 10]
        )[0]
        actions: dict[str, Callable[[], None]] = {
            "kill -9": lambda: kill(scene.fleet, victim),
            "machine lost": lambda: lose_machine(scene.fleet, victim),
            "paused beyond lease": lambda: self._pause(victim),
            "SIGTERM": lambda: self._terminate(victim),
        }
        try:
            running = self._running_on(victim)
        except AWAY:
            return ""
        actions[cause]()
        scene.clock.start(cause, running)
        self._start()
        return cause

    def _pause(self, victim: Child) -> None:
        victim.signal(signal.SIGSTOP)
        self._scene.unfit.add(victim)
        self._later(self._scene.plan.lease + 2, partial(self._wake, victim))

    def _wake(self, sleeper: Child) -> None:
        """Resume a worker so that it notices its loss and stops; another one has replaced it."""
        sleeper.signal(signal.SIGCONT)
        time.sleep(0.5)
        self._scene.unfit.discard(sleeper)
        if sleeper in self._scene.fleet.workers:
            self._terminate(sleeper)

    def _terminate(self, worker: Child) -> None:
        worker.signal(signal.SIGTERM)
        self._scene.fleet.workers.remove(worker)
        self._scene.leaving.append(worker)

    def _restart_redis(self) -> str:
        self._scene.servers.restart_store(self._scene.chance.uniform(0, 1))
        return "Redis killed"

    def _empty_broker(self) -> str:
        with contextlib.suppress(*AWAY):
            self._scene.servers.empty_broker()
        return "broker emptied"

    def _fail_over(self) -> str:
        self._scene.servers.fail_over(self._scene.chance.uniform(0.1, 0.6))
        return "failover"

    def _move_a_slot(self) -> str:
        self._scene.servers.move_a_slot()
        return "slot moved"

    def _stop_a_shard(self) -> str:
        self._scene.servers.stop_a_shard(self._scene.chance.uniform(0.5, 5))
        return "shard stands still"

    def _break_broker(self) -> str:
        scene = self._scene
        actions: dict[str, Callable[[], None]] = {
            "killed": lambda: scene.servers.restart_broker(0),
            "away": lambda: scene.servers.restart_broker(scene.chance.uniform(3, 12)),
            "emptied": scene.servers.empty_broker,
            "cut off": scene.servers.cut_off_broker,
        }
        how = scene.chance.choice(scene.servers.broker_faults)
        actions[how]()
        return f"broker of its own {how}"

    def _block_a_loop(self) -> str:
        """Set a trap, and wait until a worker is caught in it."""
        scene = self._scene
        # Short enough to wait for, or so long that the worker must end itself.
        seconds = scene.chance.choice((1.0, 2.0, 4.0, STUCK + 2 * scene.plan.lease))
        trap = scene.traps / "block"
        new = scene.traps / "new"
        new.write_text(str(seconds))
        new.rename(trap)
        deadline = time.monotonic() + 20
        while trap.exists():
            if time.monotonic() > deadline:
                with contextlib.suppress(FileNotFoundError):
                    trap.unlink()
                    return ""
            time.sleep(0.02)
        stuck = {int(path.name.split("-")[1]) for path in scene.traps.glob("sprung-*")}
        for worker in scene.fleet.workers:
            if worker.pid in stuck and worker not in scene.unfit:
                scene.unfit.add(worker)
                self._later(seconds, partial(scene.unfit.discard, worker))
                with contextlib.suppress(*AWAY):
                    scene.clock.start("event loop blocked", self._running_on(worker))
        return "event loop blocked"

    def _kill_a_watchdog(self) -> str:
        victim = self._victim()
        if victim is None:
            return ""
        try:
            for pid in watchdogs(victim):
                os.kill(pid, signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            # It has just ended, or was killed before and is not reaped yet.
            return ""
        return "watchdog killed"

    def _a_wrong_clock(self) -> str:
        """Replace a worker with one whose clock is an hour slow or fast."""
        victim = self._victim()
        if victim is None:
            return ""
        self._terminate(victim)
        off = self._scene.chance.choice((-HOUR, HOUR))
        self._start(clock_off(off, self._scene.plan.folder))
        return "clock off by an hour"

    def _fill_disk(self) -> str:
        self._scene.servers.fill_disk(self._scene.chance.uniform(0.5, 4))
        return "disk full"

    def _cut_network(self) -> str:
        victim = self._victim()
        if victim is None:
            return ""
        scene = self._scene
        state = scene.chance.choice([Network.HANGS, Network.CUT, Network.LOSES_ANSWERS])
        try:
            running = self._running_on(victim)
        except AWAY:
            return ""
        scene.servers.network(scene.ways[victim], state)
        scene.clock.start(f"network {state}", running)
        scene.unfit.add(victim)
        seconds = scene.chance.uniform(0.3, scene.plan.lease + 3)
        self._later(seconds, partial(self._heal_network, victim))
        return f"network {state}"

    def _heal_network(self, worker: Child) -> None:
        self._scene.unfit.discard(worker)
        self._scene.servers.network(self._scene.ways[worker], Network.WELL)

    def _a_newer_release(self) -> str:
        self._scene.skew.plant()
        return "newer release"

    def _later(self, seconds: float, restore: Callable[[], None]) -> None:
        self._scene.later.append((time.monotonic() + seconds, restore))
