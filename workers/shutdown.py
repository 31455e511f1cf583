"""The end of a worker process: how long its turns may still run, and when they are handed back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from agentapi import Settings
from agentapi.logs import line
from workers.isolation import IsolatedTurns
from workers.turns.running import RunningTurns, StopReason
from workers.upkeep.sweeper import Sweeper

log = logging.getLogger("agentapi.runtime")

CONSUMER_STOPS_WITHIN: Final = 2.0
"""Seconds that Celery has to stop taking tasks before turns are handed back anyway."""


class Shutdown:
    """Ends or hands back the turns of a process that is to end.

    Attributes:
        owner: The worker's name, for the log.
        begun: Whether the process is shutting down.
    """

    def __init__(
        self,
        settings: Settings,
        running: RunningTurns,
        isolation: IsolatedTurns,
        sweeper: Sweeper,
        wake_consumer: Callable[[], object],
    ) -> None:
        """Prepare it.

        Args:
            settings: How long turns may still run.
            running: The turns of this process.
            isolation: Those that it runs in processes of their own.
            sweeper: Stops first.
            wake_consumer: Called when the worker takes no further turns.
        """
        self.owner = ""
        self.begun = False
        self._settings = settings
        self._running = running
        self._isolation = isolation
        self._sweeper = sweeper
        self._wake_consumer = wake_consumer
        self._deadline = 0.0
        self._consumer_stopped = threading.Event()
        self._completed = threading.Event()

    def request(self, *, at_once: bool = False) -> None:
        """Begin the shutdown that a signal asks for.

        Running turns get `shutdown_grace` from now on, whatever Celery does; a second signal ends
        that time. Called in a signal handler, so it must not block.
        """
        again, self.begun = self.begun, True
        grace = 0 if at_once or again else self._settings.shutdown_grace
        self._deadline = time.monotonic() + grace
        if not again:
            # A signal handler may interrupt code that holds any of our locks, so a thread does the
            # rest.
            threading.Thread(target=self._end_turns, name="agentapi-shutdown", daemon=True).start()
        self._wake_consumer()

    def _end_turns(self) -> None:
        log.info(line("worker.stopping", owner=self.owner, turns=len(self._running.all())))
        # First of all: others can sweep in its place while the turns here finish.
        self._sweeper.stop()
        while time.monotonic() < self._deadline:
            if self._completed.wait(0.05):
                return
        # A turn handed back while Celery still takes tasks could return to this worker.
        self._consumer_stopped.wait(CONSUMER_STOPS_WITHIN)
        self.hand_back()

    def hand_back(self) -> None:
        """Stop all running turns after their last recorded step and hand them back."""
        # Isolated turns run in processes of their own, out of reach of `running`.
        self._isolation.hand_back()
        for turn in self._running.all():
            turn.stop(StopReason.SHUTDOWN)

    def end_now(self) -> None:
        """Begin no further turn, and hand back those that run."""
        self.begun = True
        self.hand_back()

    def drain(self) -> None:
        """Wait until running turns have ended or were handed back. No further turn begins."""
        # Celery stops its consumer before its pool, so no further task can come now.
        self._consumer_stopped.set()
        if not self.begun:
            self.request()
        while not (self._running.wait_until_none(0.1) and self._isolation.wait_until_none(0.1)):
            # Closing may wait for Redis: one timeout more, then the leases are left to expire.
            if time.monotonic() > self._deadline + self._settings.redis_timeout:
                return
            # In each round: a claim that was under way may have added a turn since the last one.
            if time.monotonic() > self._deadline:
                self.hand_back()

    def completed(self) -> None:
        """Note that the process's threads have ended: nothing is left to hand back."""
        self._completed.set()
