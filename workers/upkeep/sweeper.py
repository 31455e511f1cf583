"""The sweep: it dispatches turns that no worker continues.

The workers of a fleet share the groups of partitions. Each keeps its share by calling Redis every
second; if it does not, the others take it over. All workers notice if a group is not swept.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest
from typing import Final, TypeAlias, TypeVar
from zlib import crc32

from agentapi.broker.wire import queue_of_partition
from agentapi.errors import AgentAPIError, StoreUnavailable
from agentapi.ids import partition_of
from agentapi.logs import line
from agentapi.settings import Settings
from agentapi.stores import Errand, SweepStore, Wakeup
from agentapi.stores.groups import SWEEP_GROUPS, group_of, partitions_of
from agentapi.supervision import Service, Supervisor
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.outage import Outage

ELECTION_BEATS: Final = 2
"""Sweeps that a worker may miss before others take its groups. With a sweep every second, a group
has no sweeper for at most three seconds."""

AWAY_BEATS: Final = 5
"""Sweeps between two attempts at an election whose shard is unavailable: an attempt waits for an
answer."""

ABSENT_AFTER: Final = 5.0
ABSENT_BEATS: Final = 5
"""Time after which workers log that a group is not swept: seconds or sweeps, whichever is
longer."""

AT_ONCE: Final = 100
"""Conversations of a partition that are checked between two errands."""

MOST_OVERDUE: Final = 1000
"""Maximum entries of a partition that one sweep processes, not counting errands that fail."""

LONGEST_REST: Final = 300.0
"""Maximum seconds before an errand that keeps failing is tried again."""

T = TypeVar("T")

Work: TypeAlias = Callable[[], int]
"""A small step of a sweep. It returns how many turns it dispatched."""

log = logging.getLogger("agentapi.sweep")


@dataclass(kw_only=True)
class BrokenErrands:
    """Errands that failed. Each rests for a growing time, so that it does not block others."""

    clock: Callable[[], float] = time.monotonic
    _failures: dict[Errand, tuple[int, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._failures)

    def rests(self, errand: Errand) -> bool:
        """Whether the errand must wait before its next attempt."""
        return errand in self._failures and self._failures[errand][1] > self.clock()

    def failed(self, errand: Errand) -> None:
        """Note that the errand failed."""
        times = self._failures.get(errand, (0, 0.0))[0] + 1
        self._failures[errand] = (times, self.clock() + min(2.0**times, LONGEST_REST))

    def keep(self, errands: Iterable[Errand]) -> None:
        """Forget all but these."""
        left = set(errands)
        self._failures = {e: f for e, f in self._failures.items() if e in left}

    def done(self, errand: Errand) -> None:
        """Note that the errand was carried out."""
        self._failures.pop(errand, None)


class Sweeper:
    """A thread that sweeps its worker's share of the groups of partitions."""

    def __init__(
        self,
        settings: Settings,
        store: SweepStore,
        dispatcher: Dispatcher,
        errands: Errands,
        outage: Outage,
        *,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = settings.sweep_interval
        self._queue_count = settings.queues
        self._store = store
        self._dispatcher = dispatcher
        self._errands = errands
        self._outage = outage
        self._clock = clock
        self._candidate = ""
        self._progressed = False
        self._elected_at = -1.0
        self._leads = False
        self._groups: frozenset[int] = frozenset()
        self._own: frozenset[int] = frozenset()
        self._guest = 0
        self._asks_at = 0.0
        self._began = clock()
        self._returns = 0
        self._absent = False
        self._since = 0.0
        self._broken = BrokenErrands(clock=clock)
        supervisor = supervisor or Supervisor(fatal=None)
        self._service = supervisor.thread("agentapi-sweep", self._run)

    def start(self, candidate: str) -> None:
        """Start the thread; `candidate` is the worker's name in the election."""
        self._candidate = candidate
        # Workers that visit groups in turn begin at different ones.
        self._guest = crc32(candidate.encode()) % SWEEP_GROUPS
        self._began = self._clock()
        self._service.start()

    def stop(self) -> None:
        """End the thread, and the candidacy with it."""
        # A thread that still runs could be elected again right after.
        if self._service.stop():
            self._resign()

    @property
    def absent(self) -> bool:
        """Whether a group is not being swept, as far as this worker knows."""
        return self._absent

    @property
    def leads(self) -> bool:
        """Whether this worker is the lead, as of its last election."""
        return self._leads and not self._service.stopping

    @property
    def groups(self) -> frozenset[int]:
        """The groups of partitions that this worker sweeps, as of its last election."""
        return self._own

    @property
    def since_sweep(self) -> float:
        """Seconds since the last sweep of the group that has gone longest without one, or since
        this worker's start, as of the last election."""
        return self._since

    def sweep(self) -> int:
        """Dispatch overdue turns again; returns how many."""
        if not self._elect():
            return 0
        dispatched = 0
        for group, work in self._plan():
            if not self._still_elected():
                return dispatched
            # During a long sweep another worker may have taken the group.
            if group in self._groups:
                dispatched += work()
                self._progressed = True
        self._progressed = True
        return dispatched

    def _elect(self) -> bool:
        # Before the call: with a slow answer the election has partly run out on arrival.
        now = self._clock()
        if now < self._asks_at:
            return self._visit(now)
        try:
            election = self._store.elect(
                # `swept` only after progress: a worker that achieves nothing is reported as absent.
                self._candidate,
                ttl=ELECTION_BEATS * self._interval,
                swept=self._progressed,
            )
        except StoreUnavailable:
            if not self._store.sharded:
                raise
            # Only the shard of the election is away.
            self._asks_at = self._clock() + AWAY_BEATS * self._interval
            return self._visit(now)
        self._progressed = False
        self._leads = election.leads
        if election.groups != self._own:
            log.info(line("sweep.shared", groups=len(election.groups)))
        self._groups = self._own = election.groups
        self._elected_at = now
        since = election.since_sweep
        self._since = now - self._began if since is None else since
        # When a fleet starts or a worker reloads, the last sweep may be long ago although no worker
        # could have swept since. So absence counts from this worker's start at the earliest.
        self._note_absence(min(self._since, now - self._began))
        return bool(self._groups)

    def _visit(self, now: float) -> bool:
        """Sweep one more group each time, in addition to the worker's own. Without the election,
        nobody takes over the groups of a worker that ends. Sweeping a group twice costs time but
        does no harm."""
        self._guest = (self._guest + 1) % SWEEP_GROUPS
        self._groups = self._own | {self._guest}
        self._elected_at = now
        return True

    def _still_elected(self) -> bool:
        """During a long sweep: whether to continue; another election or a shutdown ends it."""
        if self._service.stopping:
            return False
        return self._clock() - self._elected_at < self._interval or self._elect()

    def _note_absence(self, seconds: float) -> None:
        """Log once when a group is not swept, and once when all groups are again."""
        absent = seconds > max(ABSENT_AFTER, ABSENT_BEATS * self._interval)
        if absent and not self._absent:
            log.error(line("sweep.absent", seconds=round(seconds, 1)))
        elif self._absent and not absent:
            log.warning(line("sweep.back"))
        self._absent = absent

    def _plan(self) -> Iterator[tuple[int, Work]]:
        """The sweep in small parts of one group, alternating between errands and conversations."""
        partitions = partitions_of(self._groups)
        self._look_again(partitions)
        # Resting errands stay in the index and must not take the room of others.
        overdue = self._store.overdue(MOST_OVERDUE + len(self._broken), partitions)
        # Each dispatch lengthens a turn's grace time, so make none that the broker cannot accept.
        if not overdue or not self._dispatcher.reachable():
            return
        errands = [late for late in overdue if isinstance(late, Errand)]
        self._broken.keep(errands)
        paid = [
            (group_of(e.partition), partial(self._carry_out, e))
            for e in errands
            if not self._broken.rests(e)
        ]
        conversations: dict[int, list[str]] = defaultdict(list)
        for late in overdue:
            if isinstance(late, str):
                conversations[partition_of(late)].append(late)
        claimed = self._claimed(conversations)
        looks = [
            (group_of(partition), partial(self._dispatch, found[first : first + AT_ONCE], claimed))
            for partition, found in conversations.items()
            for first in range(0, len(found), AT_ONCE)
        ]
        # Alternating, so that many of one kind do not delay the other.
        for work in chain.from_iterable(zip_longest(looks, paid)):
            if work is not None:
                yield work

    def _look_again(self, partitions: Sequence[int]) -> None:
        """After the broker returns: wake-ups sent to it before may be lost, so look again now."""
        returns = self._dispatcher.returns
        if returns != self._returns:
            hastened = self._store.hasten(partitions=partitions)
            log.info(line("sweep.hastened", turns=hastened))
            self._returns = returns

    def _carry_out(self, errand: Errand) -> int:
        def carry_out() -> bool:
            self._errands.carry_out(errand)
            return True

        try:
            done = self._try(carry_out)
        except StoreUnavailable:
            if not self._store.sharded:
                raise
            done = None
        if done:
            self._broken.done(errand)
        else:
            self._broken.failed(errand)
        return 0

    def _claimed(self, partitions: Iterable[int]) -> dict[int, float]:
        """How far the broker's non-empty queues of these partitions have come."""
        queues = {p: queue_of_partition(p, self._queue_count) for p in partitions}
        # The broker is asked once for each queue: asking for single messages would cost too much.
        held = {queue for queue in set(queues.values()) if self._dispatcher.holds(queue)}
        newest = dict.fromkeys(held, 0.0)
        for partition, claimed in self._store.claimed().items() if held else ():
            queue = queue_of_partition(partition, self._queue_count)
            if queue in held:
                newest[queue] = max(claimed, newest[queue])
        return {p: newest[queue] for p, queue in queues.items() if queue in held}

    def _dispatch(self, conversation_ids: Sequence[str], claimed: Mapping[int, float]) -> int:
        """Dispatch overdue turns of a partition; returns how many."""
        try:
            wakeups = self._try(lambda: self._store.redispatch(conversation_ids, claimed))
        except StoreUnavailable:
            if not self._store.sharded:
                raise
            # Turns on other shards do not wait for an unavailable one.
            return 0
        if wakeups is None and len(conversation_ids) > 1:
            # One of them is faulty: dispatched alone, it does not hold up the others.
            return sum(self._dispatch([one], claimed) for one in conversation_ids)
        if not wakeups:
            return 0
        for wakeup in wakeups:
            ids = {"conversation_id": wakeup.conversation_id, "turn_id": wakeup.turn_id}
            log.info(line("turn.redispatched", **ids))
        self._send(wakeups)
        return len(wakeups)

    def _send(self, wakeups: Sequence[Wakeup]) -> None:
        """Send wake-ups. If they are lost too, the next ones follow after twice the grace
        (redispatch.lua)."""

        def send(some: Sequence[Wakeup]) -> bool:
            self._dispatcher.send_all(some)
            return True

        if not self._try(partial(send, wakeups)) and len(wakeups) > 1:
            for wakeup in wakeups:
                self._try(partial(send, [wakeup]))

    def _try(self, work: Callable[[], T]) -> T | None:
        """Do a part of the work. One faulty entry must not hold up all others."""
        try:
            return work()
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error(line("sweep.failed", error=type(error).__name__))
            return None

    def _run(self, service: Service) -> None:
        try:
            while not service.wait(self._interval):
                try:
                    self.sweep()
                except StoreUnavailable as error:
                    self._outage.begins(error)
                else:
                    self._outage.ends()
                service.progress()
        except BaseException:
            # Let another worker sweep while this thread is restarted.
            self._resign()
            raise

    def _resign(self) -> None:
        if self._candidate:
            with contextlib.suppress(AgentAPIError):
                self._store.resign(self._candidate)
