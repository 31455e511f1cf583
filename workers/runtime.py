"""All that a worker process keeps besides Celery's own: started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from agentapi import Settings
from agentapi.admission import InMemoryTraffic, ProviderGate, RedisTraffic
from agentapi.agents.definition import AgentDefinition
from agentapi.flows import is_flow
from agentapi.stores import Errand, TurnStore
from agentapi.supervision import Supervisor, end_process
from agentapi.tools.threads import limit_tool_threads
from workers.compaction import Compactor
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.isolation import IsolatedTurns, SuspectTurn
from workers.logs import line
from workers.loop_thread import LoopThread
from workers.outage import Outage
from workers.turns.claimed import ClaimedTurn, Outcome
from workers.turns.closing import TurnCloser
from workers.turns.events import EventLog
from workers.turns.executor import TurnExecutor
from workers.turns.running import RunningTurns, StopReason
from workers.turns.unknown_agents import UnknownAgents
from workers.turns.unreadable import UnreadableTurns
from workers.upkeep.heartbeat import Heartbeat
from workers.upkeep.liveness import Liveness, Probe, StoreThreads, bound, threads_probe
from workers.upkeep.sweeper import Sweeper
from workers.upkeep.tool_places import ToolPlaces

log = logging.getLogger("agentapi.runtime")


STORE_THREADS: Final = 4
"""Threads that talk to Redis for all turns: a call takes them a few milliseconds at most."""

SERVER_IS_AWAY: Final = 4
"""Timeouts that pass before a call to a server out of reach says so: it is tried again."""

CONSUMER_STOPS_WITHIN: Final = 2.0
"""Seconds that Celery gets to stop taking tasks before turns are handed back all the same."""


class Runtime:
    """The event loop, heartbeat, event log, sweep and isolation, and the executor they serve."""

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, AgentDefinition],
        store: TurnStore,
        dispatcher: Dispatcher,
        process: str | None = None,
    ) -> None:
        """Make one; nothing is started.

        Args:
            settings: Of the worker.
            agents: Whom it serves, by name.
            store: Where turns are.
            dispatcher: Sends wake-ups.
            process: For a process that was forked for one suspect turn: what its claim token
                begins with. Such a process neither sweeps nor isolates.
        """
        self.agents = agents
        self.dispatcher = dispatcher
        self.running = RunningTurns()
        self._settings = settings
        self._store = store
        self._owner = "eager"
        # Claims and candidacy carry it, so that the watchdog can tell this process's from those
        # of one that was started again under the same name.
        self.process = process or uuid.uuid4().hex
        self._runs_one_turn = process is not None
        # A producer's process, which eager mode runs in, is not ours to end.
        self.supervisor = Supervisor(fatal=None if settings.eager else end_process)
        self.outage = Outage()
        self._stopping = False
        self._deadline = 0.0
        self._consumer_stopped = threading.Event()
        self._ended = threading.Event()
        self.wake_consumer: Callable[[], object] = lambda: None
        self._loop = LoopThread(self.supervisor)
        limit_tool_threads(self._loop.loop, settings.tool_threads)
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self.threads = StoreThreads(STORE_THREADS)
        self.tool_places = ToolPlaces(
            loop=self._loop.loop,
            idle=lambda: not self.running.all(),
            end=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        self.liveness = Liveness(self._probes(), self.supervisor, also=self._look_at_places)
        self._accepted = True
        self._events = EventLog(store, self.supervisor)
        traffic = InMemoryTraffic() if settings.eager else RedisTraffic(settings)
        self._gate = ProviderGate(traffic, settings.provider_limits)
        self._heartbeat = self._make_heartbeat()
        self._errands = Errands(settings=settings, store=store, dispatcher=dispatcher)
        self.sweeper = Sweeper(
            settings, store, dispatcher, self._errands, self.outage, supervisor=self.supervisor
        )
        self.isolation = self._make_isolation()
        self._executor = self._make_executor()
        self._starting = threading.Lock()
        self._started = False

    def _make_heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self._settings,
            self._store,
            self.running,
            self._gate,
            self.outage,
            supervisor=self.supervisor,
            vouches=self.liveness.alive,
        )

    def _make_isolation(self) -> IsolatedTurns:
        return IsolatedTurns(
            places=self._settings.isolated_turns,
            store=self._store,
            dispatcher=self.dispatcher,
            threads=self.threads,
            outage=self.outage,
            service=self.supervisor.watched("agentapi-isolation"),
        )

    def _make_executor(self) -> TurnExecutor:
        compactor = Compactor(
            settings=self._settings, store=self._store, dispatcher=self.dispatcher
        )
        return TurnExecutor(
            settings=self._settings,
            agents=self.agents,
            store=self._store,
            dispatcher=self.dispatcher,
            compactor=compactor,
            closer=TurnCloser(
                settings=self._settings,
                store=self._store,
                dispatcher=self.dispatcher,
                errands=self._errands,
                compactor=compactor,
                events=self._events,
                running=self.running,
                outage=self.outage,
            ),
            unknown=UnknownAgents(
                settings=self._settings, agents=self.agents, store=self._store, outage=self.outage
            ),
            unreadable=UnreadableTurns(
                store=self._store,
                dispatcher=self.dispatcher,
                errands=self._errands,
                outage=self.outage,
            ),
            events=self._events,
            gate=self._gate,
            running=self.running,
            loop=self._loop.loop,
            threads=self.threads,
            process=self.process,
            outage=self.outage,
            stopping=lambda: self._stopping,
            isolates=lambda: self.isolation.available,
        )

    def _probes(self) -> list[Probe]:
        """The parts without which the process holds turns and carries out none."""
        silence = bound(self._settings.lease_ttl)
        loop = self._loop.loop
        return [
            Probe(
                name="loop",
                ask=lambda answer: loop.call_soon_threadsafe(answer),
                bound=silence,
                where=self._loop.where,
                starved=self._loop.starved,
            ),
            threads_probe(
                self.threads,
                # A call to a server that is out of reach takes several times its timeout.
                bound=silence + SERVER_IS_AWAY * self._settings.redis_timeout,
                excused=lambda: self.outage.lasts or self.dispatcher.away,
                where=self.threads.where,
            ),
        ]

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
                self.liveness.start()
            if not self._settings.eager and not self._runs_one_turn:
                self._loop.loop.call_soon_threadsafe(self.isolation.listen, self._loop.loop)
                self.sweeper.start(self.candidate(owner))
            self._started = True
        agents = ",".join(sorted(name for name in self.agents if not is_flow(name)))
        log.info(line("worker.started", owner=owner, agents=agents))

    def candidate(self, owner: str) -> str:
        """The worker's name in the election of the sweeper."""
        return f"{owner}/{self.process}"

    def execute(self, conversation_id: str, turn_id: str, agent: str) -> dict[str, Any]:
        """Answer a wake-up in the thread that calls, to its end: eager mode."""
        if not self._started:
            self.start(self._owner)
        turn = self.begin(conversation_id, turn_id, agent)
        if not isinstance(turn, ClaimedTurn):
            return turn if isinstance(turn, dict) else {"status": "suspect"}
        carried_out = self._executor.carry_out(turn)
        outcome = asyncio.run_coroutine_threadsafe(carried_out, self._loop.loop).result()
        return self.end(turn, outcome)

    def begin(
        self, conversation_id: str, turn_id: str, agent: str, job: int = 0
    ) -> ClaimedTurn | SuspectTurn | dict[str, Any]:
        """See `TurnExecutor.begin`."""
        return self._executor.begin(conversation_id, turn_id, agent, owner=self._owner, job=job)

    def carry_out(self, turn: ClaimedTurn, then: Callable[[Outcome], None]) -> None:
        """From any thread: see `TurnExecutor.carry_out`.

        Args:
            turn: What `begin` gave.
            then: Called on the event loop with the outcome.

        Raises:
            RuntimeError: The event loop has ended.
        """
        self._loop.loop.call_soon_threadsafe(self._carry_out, turn, then)

    def _carry_out(self, turn: ClaimedTurn, then: Callable[[Outcome], None]) -> None:
        def done(task: asyncio.Task[Outcome]) -> None:
            self._tasks.discard(task)
            # Cancelled or broken before its first line, by whoever cancels every task there is.
            then(None if task.cancelled() or task.exception() else task.result())

        work = self._executor.carry_out(turn)
        try:
            task = self._loop.loop.create_task(work)
        except BaseException:
            # Nobody else would hand the turn back, and its lease would be renewed without end.
            work.close()
            then(None)
            raise
        # The event loop keeps no strong reference of its own.
        self._tasks.add(task)
        task.add_done_callback(done)

    def end(self, turn: ClaimedTurn, outcome: Outcome) -> dict[str, Any]:
        """See `TurnExecutor.end`."""
        return self._executor.end(turn, outcome)

    def accepting(self) -> bool:
        """Whether the worker takes more turns."""
        able = self.liveness.responsive() and not self.tool_places.hang
        return able and not self._stopping

    def _look_at_places(self) -> None:
        """Once a second: take turns again when what kept the worker from it has passed."""
        self.tool_places.look()
        before, self._accepted = self._accepted, self.accepting()
        if self._accepted and not before:
            self.wake_consumer()

    def carry_out_errands(self) -> None:
        """Do what the sweep would do, where none runs: eager mode."""
        while errands := [e for e in self._store.overdue() if isinstance(e, Errand)]:
            for errand in errands:
                self._errands.carry_out(errand)

    def shutdown_requested(self, *, at_once: bool = False) -> None:
        """A signal asks the worker to end.

        Turns get `shutdown_grace` from now on, whatever Celery does meanwhile; a second signal
        ends it. Called in the signal's handler: it must not wait.
        """
        again, self._stopping = self._stopping, True
        grace = 0 if at_once or again else self._settings.shutdown_grace
        self._deadline = time.monotonic() + grace
        if not again:
            threading.Thread(target=self._end_turns, name="agentapi-shutdown", daemon=True).start()
        self.wake_consumer()

    def _end_turns(self) -> None:
        self.sweeper.stop()
        while time.monotonic() < self._deadline:
            if self._ended.wait(0.05):
                return
        # Until Celery has stopped taking tasks, what is handed back could come back to us.
        self._consumer_stopped.wait(CONSUMER_STOPS_WITHIN)
        self.hand_back()

    def hand_back(self) -> None:
        """Stop all running turns at their last recorded step and hand them back."""
        self.isolation.hand_back()
        for turn in self.running.all():
            turn.stop(StopReason.SHUTDOWN)

    def end_now(self) -> None:
        """Begin nothing more, and hand back what runs."""
        self._stopping = True
        self.hand_back()

    def stop_job(self, job: int) -> None:
        """Cancel the turn of one of the pool's jobs, wherever it runs."""
        self.running.stop_job(job, StopReason.CANCELLED)
        self.isolation.cancel(job)

    def cancel_all(self) -> None:
        """Cancel all turns of this process."""
        for turn in self.running.all():
            turn.stop(StopReason.CANCELLED)

    def drain(self) -> None:
        """Wait until running turns have ended or were handed back. No more of them begin."""
        self._consumer_stopped.set()
        if not self._stopping:
            self.shutdown_requested()
        while not (self.running.wait_until_none(0.1) and self.isolation.wait_until_none(0.1)):
            if time.monotonic() > self._deadline + self._settings.redis_timeout:
                return
            if time.monotonic() > self._deadline:
                self.hand_back()

    def stop(self) -> None:
        """Stop the threads: first what hands out work, last what turns need to end."""
        if not self._started:
            return
        self.sweeper.stop()
        self.drain()
        self.isolation.stop()
        self.liveness.stop()
        self._heartbeat.stop()
        self._events.stop()
        self._loop.stop()
        self.threads.shutdown()
        self._store.close()
        self._gate.close()
        self._ended.set()
