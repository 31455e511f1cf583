"""The resources that simulated turns wait for: cores, queues and slots."""

from __future__ import annotations

from collections import deque


class Core:
    """A core or a Redis primary, which does one task at a time, in the order of requests.

    Attributes:
        busy: Total seconds of work, including accepted work that is not done yet.
    """

    __slots__ = ("_free_at", "busy")

    def __init__(self) -> None:
        self.busy = 0.0
        self._free_at = 0.0

    def work(self, now: float, seconds: float) -> float:
        """Request some seconds of work; returns the time when it is done."""
        self.busy += seconds
        self._free_at = max(now, self._free_at) + seconds
        return self._free_at


class Queues:
    """The broker's queues. Each is first in, first out; consumers take from the queues in turn."""

    __slots__ = ("_next", "_queues", "length")

    def __init__(self, count: int) -> None:
        self._queues: list[deque[int]] = [deque() for _ in range(count)]
        self._next = 0
        self.length = 0

    def put(self, queue: int, turn: int) -> None:
        """Add a wake-up."""
        self._queues[queue].append(turn)
        self.length += 1

    def take(self) -> int:
        """The next wake-up, from the first queue that has one. There must be one (see `length`)."""
        for step in range(len(self._queues)):
            queue = (self._next + step) % len(self._queues)
            if self._queues[queue]:
                self._next = queue + 1
                self.length -= 1
                return self._queues[queue].popleft()
        raise LookupError("no wake-up")


class Slots:
    """Free slots of workers. The worker that has waited longest is next, as with `BRPOP`."""

    __slots__ = ("_free", "_line", "_waits")

    def __init__(self, workers: int, slots: int) -> None:
        self._free = [slots] * workers
        self._line = deque(range(workers))
        self._waits = [True] * workers

    def take(self) -> int | None:
        """Take a slot; returns its worker, or None if no slot is free."""
        while self._line:
            worker = self._line.popleft()
            self._waits[worker] = False
            if self._free[worker] > 0:
                self._free[worker] -= 1
                if self._free[worker]:
                    self._wait(worker)
                return worker
        return None

    def give(self, worker: int) -> None:
        """Free a slot of the worker."""
        self._free[worker] += 1
        self._wait(worker)

    def lose(self, worker: int) -> None:
        """Remove a worker permanently."""
        self._free[worker] = -(10**9)

    def _wait(self, worker: int) -> None:
        if not self._waits[worker] and self._free[worker] > 0:
            self._waits[worker] = True
            self._line.append(worker)
