"""The parts of a worker process besides Celery's own, and the order of their start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agentapi import Settings
from agentapi.admission import InMemoryTraffic, ProviderGate, RedisTraffic
from agentapi.agents.definition import AgentDefinition
from agentapi.logs import line
from agentapi.stores import Errand, RedisTurnStore, TurnStore, Wakeup
from agentapi.supervision import Supervisor, end_process
from agentapi.tools.threads import limit_tool_threads
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.isolation import IsolatedTurns
from workers.outage import Outage
from workers.shutdown import Shutdown
from workers.turns.claimed import ClaimedTurn
from workers.turns.claiming import TurnClaimer
from workers.turns.closing import TurnCloser
from workers.turns.decision import HandBack, TurnDecision
from workers.turns.events import EventLog
from workers.turns.executor import TurnExecutor
from workers.turns.running import RunningTurns, StopReason
from workers.turns.summary import Summary
from workers.turns.suspect import SuspectTurn
from workers.turns.unknown_agents import UnknownAgents
from workers.turns.unreadable import UnreadableTurns
from workers.turns.work import Works
from workers.turns.writing import TurnWriter
from workers.upkeep.archivist import Archivist, ConversationArchivist, TurnArchivist
from workers.upkeep.cancellations import Cancellations
from workers.upkeep.committed import CommittedHooks
from workers.upkeep.heartbeat import Heartbeat
from workers.upkeep.liveness import Liveness, Probe, StoreThreads, bound, threads_probe
from workers.upkeep.loop_thread import LoopThread
from workers.upkeep.self_check import SelfCheck
from workers.upkeep.sweeper import Sweeper
from workers.upkeep.tool_places import ToolPlaces
from workers.work.kinds import make_works

log = logging.getLogger("agentapi.runtime")


STORE_THREADS: Final = 4
"""Threads that call Redis for all turns. A call takes at most a few milliseconds."""

SHARDED_STORE_THREADS: Final = 64
"""The same for a cluster, where threads are started as needed: each turn that waits for an
unavailable shard occupies one."""

SERVER_IS_AWAY: Final = 4
"""Number of timeouts after which a call to an unreachable server fails, because it is retried."""


class Runtime:
    """The event loop, heartbeat, event log, sweep and isolation, and the turns they serve."""

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, AgentDefinition],
        store: TurnStore,
        dispatcher: Dispatcher,
        process: str | None = None,
    ) -> None:
        """Create the parts; nothing starts yet.

        Args:
            settings: The worker's settings.
            agents: The agents that it serves, by name.
            store: Stores turns.
            dispatcher: Sends wake-ups.
            process: Only for a process that was forked for one suspect turn: the prefix of its
                claim token. Such a process neither sweeps nor isolates.
        """
        self.agents = agents
        self.dispatcher = dispatcher
        # Turns from their claim to their close: what the heartbeat renews and a shutdown stops.
        self.running = RunningTurns()
        self._settings = settings
        self._store = store
        self._owner = "eager"
        self.began = time.monotonic()
        # Part of each claim and of the candidacy. It distinguishes this process's leases from those
        # of a new worker with the same name.
        self.process = process or uuid.uuid4().hex
        self._runs_one_turn = process is not None
        # Eager mode runs in a producer's process, which we must not end.
        self.supervisor = Supervisor(fatal=None if settings.eager else end_process)
        self.outage = Outage()
        self.wake_consumer: Callable[[], object] = lambda: None
        self._loop = LoopThread(self.supervisor)
        limit_tool_threads(self._loop.loop, settings.tool_threads)
        self._tasks: set[asyncio.Task[TurnDecision]] = set()
        self.threads = StoreThreads(SHARDED_STORE_THREADS if store.sharded else STORE_THREADS)
        self.tool_places = ToolPlaces(
            loop=self._loop.loop,
            idle=lambda: not self.running.all(),
            end=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        self.liveness = Liveness(self._probes(), self.supervisor, also=self._look_at_places)
        self._accepted = True
        self._events = EventLog(store, self.supervisor)
        self._gate = self._make_gate()
        self._heartbeat = self._make_heartbeat()
        self._cancellations = Cancellations(
            store, self.process, self._heartbeat.beat, self.outage, supervisor=self.supervisor
        )
        self.self_check = SelfCheck(settings, agents, self._loop.loop, supervisor=self.supervisor)
        self._errands = Errands(settings=settings, store=store, dispatcher=dispatcher)
        self.sweeper = self._make_sweeper()
        self._archivists = self._make_archivists()
        self.isolation = self._make_isolation()
        self.shutdown = Shutdown(
            settings, self.running, self.isolation, self.sweeper, lambda: self.wake_consumer()
        )
        self._hooks = self._make_hooks()
        works = make_works(settings, agents, store, dispatcher, self._gate)
        writer = TurnWriter(events=self._events, outage=self.outage)
        self._claimer = self._make_claimer(works)
        self._executor = self._make_executor(writer)
        self._closer = self._make_closer(writer)
        # In eager mode several threads of the producer may run the first turn at the same time.
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

    def _make_gate(self) -> ProviderGate:
        settings = self._settings
        traffic = InMemoryTraffic() if settings.eager else RedisTraffic(settings)
        return ProviderGate(traffic, settings.provider_limits, parks=not settings.eager)

    def _make_sweeper(self) -> Sweeper:
        return Sweeper(
            self._settings,
            self._store,
            self.dispatcher,
            self._errands,
            self.outage,
            supervisor=self.supervisor,
        )

    def _make_archivists(self) -> Sequence[Archivist]:
        archiving = self._store.archiving if isinstance(self._store, RedisTurnStore) else None
        if archiving is None:
            return ()
        kinds: list[type[Archivist]] = [ConversationArchivist]
        if archiving.turns.on:
            kinds.append(TurnArchivist)
        return [
            kind(
                self._settings,
                archiving,
                self.outage,
                lambda: self.sweeper.leads,
                supervisor=self.supervisor,
            )
            for kind in kinds
        ]

    def _make_isolation(self) -> IsolatedTurns:
        return IsolatedTurns(
            places=self._settings.isolated_turns,
            store=self._store,
            dispatcher=self.dispatcher,
            threads=self.threads,
            outage=self.outage,
            service=self.supervisor.watched("agentapi-isolation"),
        )

    def _make_hooks(self) -> CommittedHooks:
        return CommittedHooks(
            self._settings,
            self.agents,
            self._store.hooks,
            self._loop.loop,
            self.outage,
            supervisor=self.supervisor,
        )

    def _make_claimer(self, works: Works) -> TurnClaimer:
        return TurnClaimer(
            works=works,
            store=self._store,
            dispatcher=self.dispatcher,
            unknown=UnknownAgents(settings=self._settings, store=self._store, outage=self.outage),
            unreadable=UnreadableTurns(
                store=self._store,
                dispatcher=self.dispatcher,
                errands=self._errands,
                outage=self.outage,
            ),
            running=self.running,
            loop=self._loop.loop,
            threads=self.threads,
            process=self.process,
            outage=self.outage,
            stopping=lambda: self.shutdown.begun,
            isolates=lambda: self.isolation.available,
            queues=self._settings.queues,
        )

    def _make_executor(self, writer: TurnWriter) -> TurnExecutor:
        return TurnExecutor(
            settings=self._settings,
            store=self._store,
            events=self._events,
            writer=writer,
            outage=self.outage,
        )

    def _make_closer(self, writer: TurnWriter) -> TurnCloser:
        return TurnCloser(
            settings=self._settings,
            store=self._store,
            dispatcher=self.dispatcher,
            errands=self._errands,
            events=self._events,
            writer=writer,
            running=self.running,
            outage=self.outage,
            ended=self._hooks.look,
        )

    def _probes(self) -> list[Probe]:
        """The parts without which the process would hold turns but run none."""
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
                # A call to an unreachable server takes several times its timeout.
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
            self._owner = self.shutdown.owner = owner
            self._loop.start()
            self._events.start()
            if not self._runs_one_turn:
                self._hooks.start(looks=not self._settings.eager)
            if not self._settings.eager:
                self._heartbeat.start()
                self._cancellations.start()
                self.liveness.start()
            # A process for a suspect turn runs nothing else, so that its death is attributed to
            # that turn only.
            if not self._settings.eager and not self._runs_one_turn:
                self._loop.loop.call_soon_threadsafe(self.isolation.listen, self._loop.loop)
                self.sweeper.start(self.candidate(owner))
                self.self_check.start()
                for archivist in self._archivists:
                    archivist.start()
            self._started = True
        agents = ",".join(sorted(self.agents))
        log.info(line("worker.started", owner=owner, agents=agents))

    def candidate(self, owner: str) -> str:
        """The worker's name in the election and in the sweep."""
        return f"{owner}/{self.process}"

    def execute(self, conversation_id: str, turn_id: str, agent: str) -> Summary:
        """Answer a wake-up in the calling thread, to its end: eager mode and isolated turns."""
        if not self._started:
            self.start(self._owner)
        turn = self.claim(conversation_id, turn_id, agent)
        if not isinstance(turn, ClaimedTurn):
            return turn if isinstance(turn, dict) else {"status": "suspect"}
        run = asyncio.run_coroutine_threadsafe(self._executor.run(turn), self._loop.loop)
        return self.close(turn, run.result())

    def claim(
        self, conversation_id: str, turn_id: str, agent: str, job: int = 0
    ) -> ClaimedTurn | SuspectTurn | Summary:
        """In a thread: see `TurnClaimer.claim`."""
        wakeup = Wakeup(conversation_id=conversation_id, turn_id=turn_id, agent=agent)
        return self._claimer.claim(wakeup, owner=self._owner, job=job)

    def run(self, turn: ClaimedTurn, then: Callable[[TurnDecision], None]) -> None:
        """From any thread: let the event loop run a turn; see `TurnExecutor.run`.

        Args:
            turn: What `claim` returned.
            then: Called on the event loop with the decision.

        Raises:
            RuntimeError: The event loop has ended.
        """
        # The loop belongs to its own thread; this is the only safe way in from another one.
        self._loop.loop.call_soon_threadsafe(self._run, turn, then)

    def _run(self, turn: ClaimedTurn, then: Callable[[TurnDecision], None]) -> None:
        def done(task: asyncio.Task[TurnDecision]) -> None:
            self._tasks.discard(task)
            # Foreign code that cancels all tasks may end it before its first line.
            then(HandBack() if task.cancelled() or task.exception() else task.result())

        work = self._executor.run(turn)
        try:
            task = self._loop.loop.create_task(work)
        except BaseException:
            # Without a decision the turn would never be closed, and its lease would never end.
            work.close()
            then(HandBack())
            raise
        # The event loop itself keeps only a weak reference to its tasks.
        self._tasks.add(task)
        task.add_done_callback(done)

    def close(self, turn: ClaimedTurn, decision: TurnDecision) -> Summary:
        """In a thread: see `TurnCloser.close`."""
        return self._closer.close(turn, decision)

    def accepting(self) -> bool:
        """Whether the worker takes further turns."""
        able = self.liveness.responsive() and not self.tool_places.hang
        return able and not self.shutdown.begun

    def _look_at_places(self) -> None:
        """Once a second: wake the consumer when the worker can take turns again."""
        self.tool_places.look()
        before, self._accepted = self._accepted, self.accepting()
        if self._accepted and not before:
            self.wake_consumer()

    def carry_out_errands(self) -> None:
        """Carry out overdue errands and call hooks, as threads would: eager mode has none."""
        while errands := [e for e in self._store.overdue() if isinstance(e, Errand)]:
            for errand in errands:
                self._errands.carry_out(errand)
        self._hooks.catch_up()

    def stop_job(self, job: int) -> None:
        """Cancel the turn of one of the pool's jobs, wherever it runs."""
        self.running.stop_job(job, StopReason.CANCELLED)
        self.isolation.cancel(job)

    def cancel_all(self) -> None:
        """Cancel all turns of this process."""
        for turn in self.running.all():
            turn.stop(StopReason.CANCELLED)

    def stop(self) -> None:
        """Stop the threads: first those that hand out work, last those that turns need to end."""
        if not self._started:
            return
        self.sweeper.stop()
        for archivist in self._archivists:
            archivist.stop()
        self.shutdown.drain()
        self._hooks.stop()
        # Only now: the goodbye tells the watchdog that no turn needs to be freed.
        self.isolation.stop()
        self.self_check.stop()
        self.liveness.stop()
        # Until here the leases of turns that were being closed were renewed.
        self._cancellations.stop()
        self._heartbeat.stop()
        # It flushes the last turns' events, so it stops before the store is closed.
        self._events.stop()
        self._loop.stop()
        # After the loop, which submits calls to them while it runs.
        self.threads.shutdown()
        # Last, since all of the above talk to Redis.
        self._store.close()
        self._gate.close()
        self.shutdown.completed()
