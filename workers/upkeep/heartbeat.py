"""The heartbeat: it renews leases and learns of cancellations and held providers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from agentapi.admission import ProviderGate
from agentapi.errors import StoreUnavailable
from agentapi.logs import line
from agentapi.settings import Settings
from agentapi.stores import Renewal, TurnStore
from agentapi.supervision import Service, Supervisor
from workers.outage import Outage
from workers.turns.running import RunningTurn, RunningTurns, StopReason

log = logging.getLogger("agentapi.heartbeat")


class Heartbeat:
    """A thread that renews all leases in one pipeline, while the process is responsive."""

    def __init__(
        self,
        settings: Settings,
        store: TurnStore,
        running: RunningTurns,
        gate: ProviderGate,
        outage: Outage,
        *,
        supervisor: Supervisor,
        vouches: Callable[[], bool] = lambda: True,
    ) -> None:
        self._interval = settings.heartbeat
        self._store = store
        self._running = running
        self._gate = gate
        self._outage = outage
        self._vouches = vouches
        self._service = supervisor.thread("agentapi-heartbeat", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._service.start()

    def stop(self) -> None:
        """End the thread."""
        self._service.stop()

    def beat(self) -> bool:
        """Renew all leases; stop the turns whose lease is lost or that were cancelled.

        Returns:
            Whether there were any.
        """
        turns = self._running.all()
        # A process whose loop or store threads hang runs no turn: it must let its leases expire, so
        # that others can take over (promise 7).
        if not turns or not self._vouches():
            return False
        for turn, renewal in zip(turns, self._renew(turns), strict=True):
            if renewal is None:
                continue
            if not renewal.held:
                # Every write would be refused by now (promise 5), so stop paying for model calls.
                turn.stop(StopReason.LEASE_LOST)
            elif renewal.cancel:
                turn.stop(StopReason.CANCELLED)
        return True

    def _rouse(self) -> None:
        """Wake the turns that wait for a provider that is back.

        Every worker that knew the provider to be unavailable does so; the first one finds the
        turns.
        """
        for provider in self._gate.back():
            woken = self._store.rouse(provider)
            self._gate.roused(provider)
            if woken:
                log.info(line("provider.back", provider=provider, turns=woken))

    def _renew(self, turns: Sequence[RunningTurn]) -> Sequence[Renewal | None]:
        try:
            return self._store.renew([turn.lease for turn in turns])
        except StoreUnavailable:
            raise
        except Exception:
            # One faulty turn record must not cost the other turns their leases.
            return [self._renew_one(turn) for turn in turns]

    def _renew_one(self, turn: RunningTurn) -> Renewal | None:
        try:
            [renewal] = self._store.renew([turn.lease])
        except StoreUnavailable:
            raise
        except Exception as error:
            lease, kind = turn.lease, type(error).__name__
            ids = {"conversation_id": lease.conversation_id, "turn_id": lease.turn_id}
            log.error(line("lease.not_renewed", **ids, error=kind))
            return None
        return renewal

    def _run(self, service: Service) -> None:
        while not service.wait(self._interval):
            # An unexpected error must not end the beats: leases are short.
            try:
                if self.beat():
                    # Only a call that succeeded shows that Redis is back; without turns none was
                    # made.
                    self._outage.ends()
            except StoreUnavailable as error:
                self._outage.begins(error)
            except BaseException as error:
                service.failed(error)
                continue
            service.progress()
            try:
                # Here because this thread talks to Redis at the right rate anyway.
                self._gate.look()
                self._rouse()
            except StoreUnavailable as error:
                self._outage.begins(error)
            except BaseException as error:
                service.failed(error)
