"""The sweep: turns that nobody carries on are dispatched again.

One worker of the fleet does it, elected by a short lease in Redis.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Final

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
        if not self._store.elect(self._candidate, ttl=ELECTION_BEATS * self._interval):
            return 0
        overdue = self._store.overdue()
        # Each dispatch lengthens the turn's grace: none is counted that the broker cannot take.
        if not overdue or not self._dispatcher.reachable():
            return 0
        sent = 0
        queues = self._queues(overdue)
        for late in overdue:
            try:
                sent += self._move(late, queues)
            except StoreUnavailable:
                raise
            except Exception as error:
                # One entry with a fault must not keep the fleet from all others.
                log.error(line("sweep.failed", error=type(error).__name__))
        return sent

    def _queues(self, overdue: Iterable[str | Errand]) -> dict[str, float]:
        """How far the broker's queues of overdue conversations have come; none that is empty."""
        wanted = {self._queue_of(late) for late in overdue if isinstance(late, str)}
        held = {queue for queue in wanted if self._dispatcher.holds(queue)}
        claimed: dict[str, float] = {}
        for partition, time in self._store.claimed().items() if held else ():
            queue = queue_of_partition(partition, self._queue_count)
            if queue in held:
                claimed[queue] = max(time, claimed.get(queue, 0))
        return claimed

    def _queue_of(self, conversation_id: str) -> str:
        return queue_of_partition(partition_of(conversation_id), self._queue_count)

    def _move(self, late: str | Errand, queues: Mapping[str, float]) -> int:
        """See to an overdue entry; returns how many turns were dispatched."""
        if isinstance(late, Errand):
            self._errands.carry_out(late)
            return 0
        wakeup = self._store.redispatch(late, claimed=queues.get(self._queue_of(late)))
        if wakeup is None:
            return 0
        log.info(line("turn.redispatched", turn_id=wakeup.turn_id))
        self._dispatcher.send(wakeup)
        return 1

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.sweep()
            except AgentAPIError as error:
                self._outage.begins(error)
            else:
                self._outage.ends()
