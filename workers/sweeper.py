"""The sweep: turns that nobody carries on are dispatched again.

One worker of the fleet does it, elected by a short lease in Redis.
"""

from __future__ import annotations

import logging
import threading

from agentapi.errors import AgentAPIError
from agentapi.settings import Settings
from agentapi.stores import TurnStore
from workers.dispatch import Dispatcher
from workers.logs import line

log = logging.getLogger("agentapi.sweep")


class Sweeper:
    """A thread that looks at the due index of all partitions, if its worker is the elected."""

    def __init__(self, settings: Settings, store: TurnStore, dispatcher: Dispatcher) -> None:
        self._interval = settings.sweep_interval
        self._store = store
        self._dispatcher = dispatcher
        self._stop = threading.Event()
        self._away = False
        self._candidate = ""
        self._thread = threading.Thread(target=self._run, name="agentapi-sweep", daemon=True)

    def start(self, candidate: str) -> None:
        """Start the thread; `candidate` is the worker's name in the election."""
        self._candidate = candidate
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def sweep(self) -> int:
        """Dispatch again what is overdue; returns how many."""
        if not self._store.elect(self._candidate, ttl=2.5 * self._interval):
            return 0
        sent = 0
        for conversation_id in self._store.overdue():
            wakeup = self._store.redispatch(conversation_id)
            if wakeup is not None:
                log.info(line("turn.redispatched", turn_id=wakeup.turn_id))
                self._dispatcher.send(wakeup)
                sent += 1
        return sent

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.sweep()
                self._away = False
            except AgentAPIError as error:
                if not self._away:
                    log.warning(line("sweep.failed", error=error))
                self._away = True
