"""A discrete-event simulation of a fleet. It shows what a formula cannot, such as recovery storms.

It models the runtime: partitions and their queues, the order of turns in a conversation, leases and
sweeps, and parked turns with their wake-ups. Turns wait for cores, Redis primaries and slots, and
cost what was measured.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentapi.admission.base import BreakerRule
from agentapi.broker.wire import queue_of_partition
from agentapi.engine.patience import park_delay
from agentapi.ids import PARTITIONS, partition_of
from agentapi.settings import Settings
from agentapi.stores.answers import LONGEST_ROUSE, ROUSED_A_SECOND
from agentapi.stores.groups import SWEEP_GROUPS, group_of
from orchestrator.capacity.costs import Costs
from orchestrator.capacity.load import Load
from orchestrator.capacity.machines import Core, Queues, Slots
from orchestrator.capacity.outage import Lost, Outage
from orchestrator.capacity.plan import Fleet
from orchestrator.capacity.routing import shards_of_partitions
from orchestrator.capacity.summary import Outcome, spread

_MS: Final = 1000.0

_LONGEST_PROBE: Final = BreakerRule().longest
"""Seconds between two probes of a provider that is still unavailable."""

Step = Callable[["_Turn"], None]


@dataclass(slots=True)
class _Turn:
    """A turn in progress.

    Attributes:
        number: Its position in the order of arrival.
        life: Incremented when it loses its worker or parks, which cancels the events planned
            before.
        calls: Remaining model calls.
        work: Seconds that models and tools have taken, including the call in progress.
        answers_at: When the call in progress will be answered.
        parks: How many times it has waited for the provider.
        suspect: Whether it has lost a worker and runs in a separate process.
    """

    number: int
    conversation: int
    partition: int
    arrived: float
    calls: int
    life: int = 0
    work: float = 0.0
    answers_at: float = 0.0
    worker: int = -1
    parks: int = 0
    suspect: bool = False
    lost_at: float | None = None


@dataclass(kw_only=True)
class Simulation:
    """A fleet under load.

    Attributes:
        load: The load. Model and tool times are exponentially distributed unless `steady`.
        fleet: The simulated fleet.
        costs: The measured costs.
        seconds: Seconds during which turns arrive.
        lost: The loss of machines to simulate, if any.
        outage: The provider's outage to simulate, if any.
        steady: Whether every model and tool call takes exactly the load's time.
        seed: Seed of all random numbers.
        arrivals: Arrival times in seconds and conversations of turns, instead of those of the load.
        progress: Called once in each simulated second, with the second.
    """

    load: Load
    fleet: Fleet
    costs: Costs
    seconds: float = 60.0
    lost: Lost | None = None
    outage: Outage | None = None
    steady: bool = False
    seed: int = 1
    arrivals: Iterable[tuple[float, int]] | None = None
    progress: Callable[[float], None] | None = None
    _now: float = field(default=0.0, init=False)
    _heap: list[tuple[float, int, int, Step, _Turn]] = field(default_factory=list, init=False)
    _planned: int = field(default=0, init=False)

    def run(self) -> Outcome:
        """Run until every turn has ended."""
        self._prepare()
        upcoming = self._arrivals()
        arrival = next(upcoming, None)
        second = 0.0
        lost = self.lost
        while arrival is not None or self._heap:
            planned = self._heap[0][0] if self._heap else float("inf")
            if lost is not None and lost.at <= min(planned, arrival[0] if arrival else planned):
                self._now = lost.at
                self._lose(lost.workers)
                lost = None
            elif arrival is not None and arrival[0] <= planned:
                self._now = arrival[0]
                self._arrive(arrival[1])
                arrival = next(upcoming, None)
            else:
                self._now, _, life, step, turn = heapq.heappop(self._heap)
                if life == turn.life:
                    step(turn)
            if self.progress is not None and self._now >= second:
                self.progress(self._now)
                second = self._now + 1
        return self._outcome()

    def _prepare(self) -> None:
        settings = Settings.model_construct()
        self._lease_ttl, self._heartbeat = settings.lease_ttl, settings.heartbeat
        self._sweep = settings.sweep_interval
        fleet, costs, load = self.fleet, self.costs, self.load
        self._random = random.Random(self.seed)
        self._shards = [Core() for _ in range(fleet.shards)]
        self._shard_of = shards_of_partitions(fleet.shards, balanced=fleet.balanced)
        self._cores = [Core() for _ in range(fleet.workers)]
        self._sweepers = [Core() for _ in range(fleet.workers)]
        self._share_sweep(range(fleet.workers))
        self._queues = Queues(fleet.queues)
        names = [queue_of_partition(partition, fleet.queues) for partition in range(PARTITIONS)]
        places = {name: place for place, name in enumerate(sorted(set(names)))}
        self._queue_of = [places[name] for name in names]
        self._slots = Slots(fleet.workers, fleet.slots)
        self._suspects: deque[_Turn] = deque()
        self._places = Slots(fleet.workers, settings.isolated_turns)
        self._turns: dict[int, _Turn] = {}
        self._inboxes: dict[int, deque[_Turn]] = {}
        self._running: list[set[int]] = [set() for _ in range(fleet.workers)]
        self._parked: set[int] = set()
        self._arrived = 0
        self._ended: dict[int, float] = {}
        self._delays: list[float] = []
        self._recovered: list[float] = []
        self._due, self._sweep_behind = 0, 0.0
        self._in_flight = self._most_in_flight = self._most_waiting = 0
        self._backlog: float | None = None
        self._back_at = float("inf")
        if self.outage is not None:
            # The next probe finds out; its time is random.
            found = self._random.uniform(0, _LONGEST_PROBE)
            self._back_at = self.outage.at + self.outage.seconds + found
        pieces = load.streamed * load.pieces
        # Half of a turn's cost is before its first model call, and half after its last.
        self._worker_half = (costs.worker_turn_ms + pieces * costs.worker_piece_ms) / 2 / _MS
        self._store_half = (costs.store_turn_ms + pieces * costs.store_piece_ms) / 2 / _MS

    # Arrivals

    def _arrivals(self) -> Iterator[tuple[float, int]]:
        if self.arrivals is not None:
            yield from self.arrivals
            return
        now, random_ = 0.0, random.Random(self.seed + 1)
        while (now := now + random_.expovariate(self.load.turns_per_second)) < self.seconds:
            yield now, random_.randrange(self.load.conversations)

    def _arrive(self, conversation: int) -> None:
        calls = self._calls()
        turn = _Turn(
            number=self._arrived,
            conversation=conversation,
            partition=partition_of(f"user:{conversation}"),
            arrived=self._now,
            calls=calls,
        )
        self._arrived += 1
        self._turns[turn.number] = turn
        inbox = self._inboxes.setdefault(conversation, deque())
        inbox.append(turn)
        accepted = self._store(turn, self.costs.store_enqueue_ms / _MS)
        if len(inbox) == 1:
            self._plan(accepted + self.costs.wakeup_ms / _MS, self._queued, turn)

    def _calls(self) -> int:
        whole = int(self.load.model_calls)
        return whole + (self._random.random() < self.load.model_calls - whole)

    # A turn's way

    def _queued(self, turn: _Turn) -> None:
        if turn.suspect:
            self._suspects.append(turn)
        else:
            self._queues.put(self._queue_of[turn.partition], turn.number)
        self._note_waiting()
        self._assign()

    def _assign(self) -> None:
        """Give waiting turns to workers with free slots."""
        while self._queues.length:
            worker = self._slots.take()
            if worker is None:
                break
            self._begin(self._turns[self._queues.take()], worker, self._worker_half)
        while self._suspects:
            worker = self._places.take()
            if worker is None:
                break
            cost = self._worker_half + self.costs.isolated_ms / _MS
            self._begin(self._suspects.popleft(), worker, cost)

    def _begin(self, turn: _Turn, worker: int, cost: float) -> None:
        turn.worker = worker
        self._running[worker].add(turn.number)
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        self._plan(self._cores[worker].work(self._now, cost), self._claimed, turn)

    def _claimed(self, turn: _Turn) -> None:
        if turn.lost_at is not None:
            self._recovered.append(self._now - turn.lost_at)
            turn.lost_at = None
        self._plan(self._store(turn, self._store_half), self._ask, turn)

    def _ask(self, turn: _Turn) -> None:
        if self._away():
            self._park(turn)
            return
        self._wait(turn, self.load.model_seconds, self._answered)

    def _answered(self, turn: _Turn) -> None:
        core = self._cores[turn.worker]
        if turn.calls > 1:
            done = core.work(self._now, self.costs.worker_step_ms / _MS)
            self._plan(done, self._recorded, turn)
        else:
            self._plan(core.work(self._now, self._worker_half), self._committed, turn)

    def _recorded(self, turn: _Turn) -> None:
        # Not before, because the model is asked again for a response that was not recorded.
        turn.calls -= 1
        self._plan(self._store(turn, self.costs.store_step_ms / _MS), self._tool, turn)

    def _tool(self, turn: _Turn) -> None:
        self._wait(turn, self.load.tool_seconds, self._ask)

    def _committed(self, turn: _Turn) -> None:
        self._plan(self._store(turn, self._store_half), self._end, turn)

    def _end(self, turn: _Turn) -> None:
        self._release(turn)
        del self._turns[turn.number]
        self._ended[turn.number] = self._now
        self._delays.append(self._now - turn.arrived - turn.work)
        inbox = self._inboxes[turn.conversation]
        inbox.popleft()
        if inbox:
            self._plan(self._now + self.costs.wakeup_ms / _MS, self._queued, inbox[0])
        else:
            del self._inboxes[turn.conversation]
        self._assign()

    def _release(self, turn: _Turn) -> None:
        """Free the slot."""
        self._in_flight -= 1
        self._running[turn.worker].discard(turn.number)
        (self._places if turn.suspect else self._slots).give(turn.worker)

    # What goes wrong

    def _away(self) -> bool:
        outage = self.outage
        return outage is not None and outage.at <= self._now < self._back_at

    def _park(self, turn: _Turn) -> None:
        turn.parks += 1
        self._cores[turn.worker].work(self._now, self._worker_half)
        self._store(turn, self._store_half)
        self._release(turn)
        turn.life += 1
        if not self._parked and self._backlog is None:
            self._plan_rouse()
        self._parked.add(turn.number)
        self._note_waiting()
        self._plan(self._now + park_delay(turn.parks), self._wake, turn)
        self._assign()

    def _plan_rouse(self) -> None:
        herald = _Turn(number=-1, conversation=-1, partition=0, arrived=0.0, calls=0)
        self._plan(self._back_at, self._rouse, herald)
        self._backlog = self._back_at

    def _rouse(self, _: _Turn) -> None:
        """The provider is back: wake the turns that wait for it, one after the other."""
        waiting = sorted(self._parked)
        step = min(1 / ROUSED_A_SECOND, LONGEST_ROUSE / max(len(waiting), 1))
        for place, number in enumerate(waiting):
            turn = self._turns[number]
            turn.life += 1
            self._plan(self._now + step * place, self._wake, turn)

    def _wake(self, turn: _Turn) -> None:
        self._parked.discard(turn.number)
        sent = self._send(turn)
        if not self._away():
            self._backlog = sent

    def _lose(self, workers: int) -> None:
        for worker in range(workers):
            self._slots.lose(worker)
            self._places.lose(worker)
            for number in self._running[worker]:
                turn = self._turns[number]
                turn.life += 1
                turn.work -= max(turn.answers_at - self._now, 0.0)
                turn.lost_at, turn.suspect = self._now, True
                self._in_flight -= 1
                left = self._lease_ttl - self._random.uniform(0, self._heartbeat)
                late = self._now + left + self._random.uniform(0, self._sweep)
                self._plan(late, self._overdue, turn)
            self._running[worker].clear()

        # This is long before the first of these leases expires.
        self._share_sweep(range(workers, self.fleet.workers))

    def _share_sweep(self, workers: Sequence[int]) -> None:
        """Assign each group of partitions to a live worker, if there is one."""
        if workers:
            self._sweeper_of = [workers[group % len(workers)] for group in range(SWEEP_GROUPS)]

    def _overdue(self, turn: _Turn) -> None:
        # The call whose answer was lost is repeated; recorded calls are not.
        self._send(turn)

    def _send(self, turn: _Turn) -> float:
        """Let a sweeper send a turn's wake-up after its earlier ones; returns the time."""
        sweeper = self._sweepers[self._sweeper_of[group_of(turn.partition)]]
        sent = sweeper.work(self._now, self.costs.dispatch_ms / _MS)
        self._store(turn, self.costs.store_dispatch_ms / _MS)
        self._sweep_behind = max(self._sweep_behind, sent - self._now)
        self._due += 1
        self._plan(sent + self.costs.wakeup_ms / _MS, self._sent, turn)
        return sent

    def _sent(self, turn: _Turn) -> None:
        self._due -= 1
        self._queued(turn)

    # Helpers

    def _plan(self, at: float, step: Step, turn: _Turn) -> None:
        self._planned += 1
        heapq.heappush(self._heap, (at, self._planned, turn.life, step, turn))

    def _store(self, turn: _Turn, seconds: float) -> float:
        """Run a script on the turn's shard; returns the time when it is done."""
        return self._shards[self._shard_of[turn.partition]].work(self._now, seconds)

    def _wait(self, turn: _Turn, seconds: float, then: Step) -> None:
        """Wait for a model or a tool."""
        if not self.steady and seconds > 0:
            seconds = self._random.expovariate(1 / seconds)
        turn.work += seconds
        turn.answers_at = self._now + seconds
        self._plan(turn.answers_at, then, turn)

    def _note_waiting(self) -> None:
        waiting = self._queues.length + len(self._suspects) + len(self._parked) + self._due
        self._most_waiting = max(self._most_waiting, waiting)

    def _outcome(self) -> Outcome:
        end = max(self._ended.values(), default=0.0)
        during = max(self.seconds, 1e-9) if self.arrivals is None else max(end, 1e-9)
        shards = [min(shard.busy / max(end, during), 1.0) for shard in self._shards]
        outage, backlog = self.outage, None
        if outage is not None and self._backlog is not None:
            backlog = self._backlog - outage.at - outage.seconds
        return Outcome(
            seconds=end,
            ended=len(self._ended),
            most_in_flight=self._most_in_flight,
            most_waiting=self._most_waiting,
            delay=spread(self._delays),
            hottest_shard=max(shards),
            mean_shard=sum(shards) / len(shards),
            hottest_worker=max(
                core.busy + sweeper.busy
                for core, sweeper in zip(self._cores, self._sweepers, strict=True)
            )
            / max(end, during),
            taken_over=len(self._recovered),
            recovery=spread(self._recovered) if self._recovered else None,
            backlog=backlog,
            sweep_behind=self._sweep_behind,
            ended_at=[self._ended[number] for number in sorted(self._ended)],
        )
