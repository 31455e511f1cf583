"""Receives cancellations immediately, instead of at the next heartbeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentapi.errors import StoreUnavailable
from agentapi.stores import WorkerStore
from agentapi.supervision import Service, Supervisor
from workers.outage import Outage

LONGEST_WAIT: Final = 5.0
"""Seconds of one wait for a notification. A wait without a notification costs one command."""

LOOK_AGAIN: Final = (0.1, 0.5)
"""Seconds after a notification at which to check again: the turn may have been claimed so recently
that this process did not know of it yet."""

AWAY: Final = 1.0
"""Seconds between two attempts while Redis is unreachable."""


class Cancellations:
    """A thread that waits until a turn of this process is cancelled.

    Producers leave a notification for the process. It says only that something was cancelled: an
    immediate heartbeat reads from the turns which ones. If the notification is lost, the next
    regular heartbeat finds them.
    """

    def __init__(
        self,
        store: WorkerStore,
        process: str,
        beat: Callable[[], object],
        outage: Outage,
        *,
        supervisor: Supervisor,
    ) -> None:
        """Create the thread.

        Args:
            store: Holds the notifications.
            process: The process's name in its claim tokens.
            beat: Checks all turns of the process.
            outage: Records whether Redis is unreachable.
            supervisor: Keeps the thread alive.
        """
        self._store = store
        self._process = process
        self._beat = beat
        self._outage = outage
        self._service = supervisor.thread("agentapi-cancellations", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._service.start()

    def stop(self) -> None:
        """End the thread."""
        try:
            self._service.stop(wake=lambda: self._store.tell_cancel(self._process))
        except StoreUnavailable:
            # It ends with its wait; the process need not wait for that.
            return

    def _run(self, service: Service) -> None:
        looks: list[float] = []
        while not service.stopping:
            wait = min([LONGEST_WAIT, *(max(at - time.monotonic(), 0.01) for at in looks[:1])])
            try:
                heard = self._store.hear_cancel(self._process, wait)
                now = time.monotonic()
                if heard:
                    looks = [now, *(now + later for later in LOOK_AGAIN)]
                if looks and looks[0] <= now and not service.stopping:
                    del looks[0]
                    self._beat()
            except StoreUnavailable as error:
                self._outage.begins(error)
                service.wait(AWAY)
            service.progress()
