"""Keeping the leases of the process's turns, and hearing of cancellations."""

from __future__ import annotations

import logging
import threading

from agentapi.errors import AgentAPIError
from agentapi.settings import Settings
from agentapi.stores import TurnStore
from workers.logs import line
from workers.running import RunningTurns, StopReason

log = logging.getLogger("agentapi.heartbeat")


class Heartbeat:
    """A thread that renews all leases in one pipeline. A blocked event loop does not stop it."""

    def __init__(self, settings: Settings, store: TurnStore, running: RunningTurns) -> None:
        self._interval = settings.heartbeat
        self._store = store
        self._running = running
        self._stop = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="agentapi-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def beat(self) -> None:
        """Renew all leases; stop the turns whose lease is lost or that were cancelled."""
        turns = self._running.all()
        if not turns:
            return
        renewals = self._store.renew([turn.lease for turn in turns])
        for turn, renewal in zip(turns, renewals, strict=True):
            if not renewal.held:
                turn.stop(StopReason.LEASE_LOST)
            elif renewal.cancel:
                turn.stop(StopReason.CANCELLED)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.beat()
                self._away = False
            except AgentAPIError as error:
                if not self._away:
                    log.warning(line("heartbeat.failed", error=error))
                self._away = True
