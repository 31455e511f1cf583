"""All that a worker process keeps besides Celery's own: started and stopped in order."""

from __future__ import annotations

import logging
import threading
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
from workers.running import RunningTurns, StopReason
from workers.sweeper import Sweeper

log = logging.getLogger("agentapi.runtime")


class Runtime:
    """The event loop, the heartbeat, the event log, the sweep, and the executor they serve."""

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
        self._loop = LoopThread()
        self._events = EventLog(store)
        self._heartbeat = Heartbeat(settings, store, self.running)
        self._sweeper = Sweeper(settings, store, dispatcher)
        self._executor = TurnExecutor(
            settings=settings,
            agents=agents,
            store=store,
            dispatcher=dispatcher,
            events=self._events,
            running=self.running,
            loop=self._loop.loop,
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
                self._sweeper.start(owner)
            self._started = True
        log.info(line("worker.started", owner=owner, agents=",".join(sorted(self.agents))))

    def execute(self, conversation_id: str, turn_id: str, agent: str) -> dict[str, Any]:
        """Answer a wake-up; see `TurnExecutor.execute`."""
        if not self._started:
            self.start(self._owner)
        return self._executor.execute(conversation_id, turn_id, agent, self._owner)

    def drain(self) -> None:
        """Give running turns `shutdown_grace` to end, then hand the rest back."""
        if self.running.wait_until_none(self._settings.shutdown_grace):
            return
        for turn in self.running.all():
            turn.stop(StopReason.SHUTDOWN)
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
