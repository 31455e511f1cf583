"""All that a worker process keeps besides Celery's own: started and stopped in order."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from agentapi import Agent, Settings
from agentapi.stores import TurnStore
from workers.dispatch import Dispatcher
from workers.event_log import EventLog
from workers.executor import TurnExecutor
from workers.heartbeat import Heartbeat
from workers.logs import line
from workers.loop_thread import LoopThread
from workers.patience import Outage
from workers.running import RunningTurns, StopReason
from workers.sweeper import Sweeper
from workers.watchdog import Watchdog

log = logging.getLogger("agentapi.runtime")


class Runtime:
    """The event loop, heartbeat, event log, sweep and watchdog, and the executor they serve."""

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, Agent],
        store: TurnStore,
        dispatcher: Dispatcher,
    ) -> None:
        self.agents = agents
        self.running = RunningTurns()
        self._settings = settings
        self._store = store
        self._owner = "eager"
        # Claims and candidacy carry it, so that the watchdog can tell this process's from those
        # of one that was started again under the same name.
        self._process = uuid.uuid4().hex
        self._outage = Outage()
        self._watchdog = Watchdog(settings)
        self._stopping = False
        self._deadline = 0.0
        self._loop = LoopThread()
        self._events = EventLog(store)
        self._heartbeat = Heartbeat(settings, store, self.running, self._outage)
        self._sweeper = Sweeper(settings, store, dispatcher, self._outage)
        self._executor = TurnExecutor(
            settings=settings,
            agents=agents,
            store=store,
            dispatcher=dispatcher,
            events=self._events,
            running=self.running,
            loop=self._loop.loop,
            process=self._process,
            outage=self._outage,
            stopping=lambda: self._stopping,
        )
        self._starting = threading.Lock()
        self._started = False

    def start(self, owner: str) -> None:
        """Start the threads, once.

        Args:
            owner: The worker's name, for leases, events and Flower.
        """
        with self._starting:
            if self._started:
                return
            self._owner = owner
            self._loop.start()
            self._events.start()
            if not self._settings.eager:
                self._heartbeat.start()
                candidate = f"{owner}/{self._process}"
                self._sweeper.start(candidate)
                if self._settings.watchdog:
                    self._watchdog.start(self._process, candidate)
            self._started = True
        log.info(line("worker.started", owner=owner, agents=",".join(sorted(self.agents))))

    def execute(self, conversation_id: str, turn_id: str, agent: str) -> dict[str, Any]:
        """Answer a wake-up; see `TurnExecutor.execute`."""
        if not self._started:
            self.start(self._owner)
        return self._executor.execute(conversation_id, turn_id, agent, self._owner)

    def shutdown_requested(self, *, at_once: bool = False) -> None:
        """A signal asks the worker to end.

        Turns get `shutdown_grace` from now on, whatever Celery does meanwhile; a second signal
        ends it. Called in the signal's handler: it must not wait.
        """
        again, self._stopping = self._stopping, True
        if at_once or again or not self._deadline:
            grace = 0 if at_once or again else self._settings.shutdown_grace
            self._deadline = time.monotonic() + grace
            timer = threading.Timer(grace, self.hand_back)
            timer.daemon = True
            timer.start()

    def hand_back(self) -> None:
        """Stop all running turns at their last recorded step and hand them back."""
        for turn in self.running.all():
            turn.stop(StopReason.SHUTDOWN)

    def drain(self) -> None:
        """Wait until running turns have ended or their grace is over; hand the rest back."""
        if not self._deadline:
            self._deadline = time.monotonic() + self._settings.shutdown_grace
        while (left := self._deadline - time.monotonic()) > 0:
            # In pieces: a second signal moves the deadline.
            if self.running.wait_until_none(min(left, 0.1)):
                return
        self.hand_back()
        self.running.wait_until_none(self._settings.redis_timeout)

    def stop(self) -> None:
        """Stop the threads: first what hands out work, last what turns need to end."""
        if not self._started:
            return
        self._sweeper.stop()
        self.drain()
        self._heartbeat.stop()
        self._events.stop()
        self._loop.stop()
        self._store.close()
        self._watchdog.stop()
