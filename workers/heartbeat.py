"""Keeping the leases of the process's turns; hearing of cancellations, and of providers."""

from __future__ import annotations

import threading

from agentapi.errors import AgentAPIError
from agentapi.settings import Settings
from agentapi.stores import TurnStore
from agentapi.traffic import ProviderGate
from workers.patience import Outage
from workers.running import RunningTurns, StopReason


class Heartbeat:
    """A thread that renews all leases in one pipeline. A blocked event loop does not stop it."""

    def __init__(
        self,
        settings: Settings,
        store: TurnStore,
        running: RunningTurns,
        gate: ProviderGate,
        outage: Outage,
    ) -> None:
        self._interval = settings.heartbeat
        self._store = store
        self._running = running
        self._gate = gate
        self._stop = threading.Event()
        self._outage = outage
        self._thread = threading.Thread(target=self._run, name="agentapi-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def beat(self) -> bool:
        """Renew all leases; stop the turns whose lease is lost or that were cancelled.

        Returns:
            Whether there were any.
        """
        turns = self._running.all()
        if not turns:
            return False
        renewals = self._store.renew([turn.lease for turn in turns])
        for turn, renewal in zip(turns, renewals, strict=True):
            if not renewal.held:
                turn.stop(StopReason.LEASE_LOST)
            elif renewal.cancel:
                turn.stop(StopReason.CANCELLED)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                if self.beat():
                    self._outage.ends()
                self._gate.look()
            except AgentAPIError as error:
                self._outage.begins(error)
