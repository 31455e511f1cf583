"""The faults of a soak: one at a time, from a seed. Only one of the workers is ever lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from orchestrator.stack import Child
from tests.chaos.fleet import Fleet, lose_machine
from tests.faults import flush_broker, paused, redis_down


class Harm:
    """Does a fault now and then.

    Attributes:
        done: How many of each.
        at: When, in seconds by the monotonic clock, with what.
    """

    def __init__(self, fleet: Fleet, victim: Child, *, seed: int, every: float) -> None:
        """Args:
        fleet: With a server of its own.
        victim: The worker that may be lost; whoever takes its place is the next one.
        seed: Decides what happens.
        every: Seconds between two faults; 0 for none.
        """
        self.done: Counter[str] = Counter()
        self.at: list[tuple[float, str]] = []
        self._fleet = fleet
        self._victim = victim
        self._chance = random.Random(seed)
        self._every = every
        self._next = time.monotonic() + every
        self._left: list[str] = []
        self._faults: Mapping[str, Callable[[], None]] = {
            "worker killed": self._kill,
            "machine lost": self._lose,
            "worker stopped": self._stop,
            "worker paused": self._pause,
            "broker emptied": self._flush,
            "Redis restarted": self._restart_redis,
        }

    def look(self) -> None:
        """Do a fault if it is time."""
        if not self._every or time.monotonic() < self._next:
            return
        if not self._left:
            # Each kind once before any of them twice.
            self._left = list(self._faults)
            self._chance.shuffle(self._left)
        name = self._left.pop()
        self._faults[name]()
        self.done[name] += 1
        self.at.append((time.monotonic(), name))
        self._next = time.monotonic() + self._every

    def _replace(self) -> None:
        self._victim = self._fleet.start_worker()

    def _kill(self) -> None:
        self._victim.kill()
        self._fleet.workers.remove(self._victim)
        self._replace()

    def _lose(self) -> None:
        lose_machine(self._fleet, self._victim)
        self._replace()

    def _stop(self) -> None:
        self._victim.stop()
        self._fleet.workers.remove(self._victim)
        self._replace()

    def _pause(self) -> None:
        with paused(self._victim):
            time.sleep(self._fleet.settings.lease_ttl + 1)

    def _flush(self) -> None:
        flush_broker(self._fleet.redis_url)

    def _restart_redis(self) -> None:
        with redis_down(self._fleet, hard=True):
            time.sleep(self._chance.uniform(0, 2))
