"""The sweep: turns that nobody carries on are dispatched again.

One worker of the fleet does it, elected by a short lease in Redis.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from agentapi.errors import AgentAPIError, StoreUnavailable
from agentapi.ids import partition_of
from agentapi.settings import Settings
from agentapi.stores import Errand, TurnStore
from agentapi.wire import queue_of_partition
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.logs import line
from workers.patience import Outage

ELECTION_BEATS: Final = 2
"""Sweeps that the elected may miss before another takes its place: with a sweep every second
the fleet is without a sweeper for at most three."""

T = TypeVar("T")

log = logging.getLogger("agentapi.sweep")


class Sweeper:
    """A thread that looks at the due index of all partitions, if its worker is the elected."""

    def __init__(
        self,
        settings: Settings,
        store: TurnStore,
        dispatcher: Dispatcher,
        errands: Errands,
        outage: Outage,
    ) -> None:
        self._interval = settings.sweep_interval
        self._queue_count = settings.queues
        self._store = store
        self._dispatcher = dispatcher
        self._errands = errands
        self._stop = threading.Event()
        self._outage = outage
        self._candidate = ""
        self._swept = False
        self._thread = threading.Thread(target=self._run, name="agentapi-sweep", daemon=True)

    def start(self, candidate: str) -> None:
        """Start the thread; `candidate` is the worker's name in the election."""
        self._candidate = candidate
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and the candidacy with it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
            with contextlib.suppress(AgentAPIError):
                self._store.resign(self._candidate)

    def sweep(self) -> int:
        """Dispatch again what is overdue; returns how many."""
        election = self._store.elect(
            self._candidate, ttl=ELECTION_BEATS * self._interval, swept=self._swept
        )
        self._swept = False
        if not election.elected:
            return 0
        dispatched = self._sweep()
        self._swept = True
        return dispatched

    def _sweep(self) -> int:
        overdue = self._store.overdue()
        # Each dispatch lengthens the turn's grace: none is counted that the broker cannot take.
        if not overdue or not self._dispatcher.reachable():
            return 0
        for errand in (late for late in overdue if isinstance(late, Errand)):
            self._try(partial(self._errands.carry_out, errand))
        conversations: dict[int, list[str]] = defaultdict(list)
        for late in overdue:
            if isinstance(late, str):
                conversations[partition_of(late)].append(late)
        claimed = self._claimed(conversations)
        return sum(self._dispatch(found, claimed) for found in conversations.values())

    def _claimed(self, partitions: Iterable[int]) -> dict[int, float]:
        """How far the broker's queues of these partitions have come; none that is empty."""
        queues = {p: queue_of_partition(p, self._queue_count) for p in partitions}
        held = {queue for queue in set(queues.values()) if self._dispatcher.holds(queue)}
        newest = dict.fromkeys(held, 0.0)
        for partition, time in self._store.claimed().items() if held else ():
            queue = queue_of_partition(partition, self._queue_count)
            if queue in held:
                newest[queue] = max(time, newest[queue])
        return {p: newest[queue] for p, queue in queues.items() if queue in held}

    def _dispatch(self, conversation_ids: Sequence[str], claimed: Mapping[int, float]) -> int:
        """Dispatch what is overdue of a partition; returns how many turns."""
        wakeups = self._try(lambda: self._store.redispatch(conversation_ids, claimed))
        if wakeups is None and len(conversation_ids) > 1:
            return sum(self._dispatch([one], claimed) for one in conversation_ids)
        for wakeup in wakeups or ():
            log.info(line("turn.redispatched", turn_id=wakeup.turn_id))
            self._dispatcher.send(wakeup)
        return len(wakeups or ())

    def _try(self, work: Callable[[], T]) -> T | None:
        """An entry with a fault must not keep the fleet from all others."""
        try:
            return work()
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error(line("sweep.failed", error=type(error).__name__))
            return None

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.sweep()
            except AgentAPIError as error:
                self._outage.begins(error)
            else:
                self._outage.ends()
