"""The current state of the whole fleet: workers, waiting turns, providers, failures.

Reading it costs a few round trips to Redis, for any number of turns, and one question to all
workers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from agentapi import Settings
from agentapi.admission import RedisTraffic, Traffic
from agentapi.broker.wire import queue_names, queue_of_partition
from agentapi.errors import AgentAPIError, BrokerUnavailable, StoreUnavailable
from agentapi.metrics.activity import COMMAND, ProviderUse, WorkerActivity
from agentapi.metrics.pace import WINDOW, Done
from agentapi.stores import Backlog, Paged, TurnQuery, TurnStore, TurnSummary
from agentapi.stores.backlog import ReadyTurn
from agentapi.stores.missing import Missing
from agentapi.turns import TurnStatus
from orchestrator.broker import ask_workers, producer_app

T = TypeVar("T")

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that workers have to answer."""

SHARE: Final = 0.05
"""Maximum share of the time that a reader keeps Redis busy. Slow reads are repeated less often."""

REMEMBERED: Final = 60.0
"""Seconds for which a worker is still shown after it stops answering."""

FAILURES: Final = 20
"""Maximum number of failed turns in a snapshot."""

_LOOKED_AT: Final = 100
"""Number of newest failed turns from which `FAILURES` are selected."""


class WorkerState(StrEnum):
    """The state of a worker."""

    READY = "ready"
    """It takes turns."""
    FULL = "full"
    """All its slots are taken."""
    STOPPING = "stopping"
    """It is shutting down: it finishes its turns, and takes no more."""
    STALLED = "stalled"
    """It takes no turns because one of its parts does not respond."""
    NO_REDIS = "no redis"
    """It cannot reach Redis."""
    SILENT = "silent"
    """It no longer answers: it has ended, was killed, or is too busy."""
    UNKNOWN = "unknown"
    """It runs a release that does not report its activity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetWorker:
    """A worker process.

    Attributes:
        name: Its name, as in Flower.
        activity: Its last answer; None from a release that does not report it.
        silent: Seconds since it answered; 0 if it answered now.
    """

    name: str
    activity: WorkerActivity | None
    silent: float = 0.0

    @property
    def state(self) -> WorkerState:
        """Its state."""
        now = self.activity
        if self.silent:
            return WorkerState.SILENT
        if now is None:
            return WorkerState.UNKNOWN
        if now.stopping:
            return WorkerState.STOPPING
        if now.redis_away:
            return WorkerState.NO_REDIS
        if not now.accepting:
            return WorkerState.STALLED
        return WorkerState.FULL if now.used >= now.slots else WorkerState.READY


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetTurns:
    """Counts of the first turns of all conversations. Turns behind them wait for their
    conversation.

    Attributes:
        ready: How many turns can run but have no worker.
        ready_by_queue: The same, by queue.
        running: How many turns have a worker.
        parked: How many turns wait without a worker, by what they wait for: ``provider``,
            ``tool_server``, ``approval``, ``client``, ``children``, or ``other``.
        oldest: The ready turn that has waited longest; None if none is ready.
        oldest_seconds: Seconds that this turn has waited.
        since_sweep: Seconds since the last sweep; None before the first sweep, or if that is not
            known.
        missing: The part of a cluster that did not answer and is not counted; None if all shards
            answered.
    """

    ready: int = 0
    ready_by_queue: Mapping[str, int] = field(default_factory=dict)
    running: int = 0
    parked: Mapping[str, int] = field(default_factory=dict)
    oldest: ReadyTurn | None = None
    oldest_seconds: float = 0.0
    since_sweep: float | None = None
    missing: Missing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetProvider:
    """A provider, as the fleet knows it.

    Attributes:
        held: Seconds during which no call is allowed, because the provider asked clients to wait.
        open: None while its breaker is closed; otherwise seconds until a call may probe the
            provider, 0 or less if a call may do so now.
        requests: Requests of the last minute; counted only for providers with a limit.
        tokens: Tokens of these requests.
        limit: The fleet's limits, from the workers' settings.
    """

    name: str
    held: float = 0.0
    open: float | None = None
    requests: int = 0
    tokens: int = 0
    limit: ProviderUse = field(default_factory=ProviderUse)


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetSnapshot:
    """A snapshot of the fleet.

    Attributes:
        taken_at: When it was taken, in seconds since 1970 by this machine's clock.
        asked: Whether the workers have ever been asked; until then, no worker is known.
        workers: Workers by name: those that answered, and those that did until a short while ago.
        turns: None while Redis is out of reach.
        providers: Providers of the workers' agents; empty while Redis is out of reach.
        failures: The newest failed turns, the last to end first; None if lists are switched off, or
            while Redis is out of reach.
        redis_fault: Why Redis could not be read, or None.
        broker_fault: Why the workers could not be asked, or None.
        gaps: Descriptions of what is missing because cluster shards do not answer.
    """

    taken_at: float
    asked: bool = True
    workers: Sequence[FleetWorker] = ()
    turns: FleetTurns | None = None
    providers: Sequence[FleetProvider] = ()
    failures: Sequence[TurnSummary] | None = None
    redis_fault: str | None = None
    broker_fault: str | None = None
    gaps: Sequence[str] = ()

    @property
    def slots(self) -> int:
        """How many turns the workers that answered can run at the same time."""
        return sum(now.slots for now in self._answered())

    @property
    def used(self) -> int:
        """How many of these slots are occupied."""
        return sum(now.used for now in self._answered())

    @property
    def answering(self) -> int:
        """How many workers answered."""
        return sum(not worker.silent for worker in self.workers)

    @property
    def minute(self) -> Done:
        """What the workers that answered did in the last minute. The work of workers that are gone
        is not included."""
        return sum((now.minute for now in self._answered()), start=Done())

    @property
    def rate(self) -> float:
        """Turns that ended per second, over the last minute or since the workers started."""
        return sum(now.minute.ended / min(max(now.uptime, 1.0), WINDOW) for now in self._answered())

    def _answered(self) -> Iterator[WorkerActivity]:
        for worker in self.workers:
            if worker.activity is not None and not worker.silent:
                yield worker.activity


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """A worker's last answer, the question it belongs to, and its time."""

    activity: WorkerActivity | None
    question: int
    at: float


class _Kept(Generic[T]):
    """A cached value, read so seldom that reading takes at most `SHARE` of the time."""

    def __init__(
        self, read: Callable[[], T], missing: Callable[[T], Missing | None] = lambda _: None
    ) -> None:
        self._read = read
        self._missing = missing
        self._kept: tuple[T, float] | None = None

    def get(self) -> T:
        """Read the value, or return the one that was read before."""
        began = time.monotonic()
        if self._kept is None or began >= self._kept[1]:
            found = self._read()
            ended = time.monotonic()
            # Waiting for an unavailable shard keeps no server busy, so that time does not count.
            rest = 0.0 if self._missing(found) else (ended - began) * (1 / SHARE - 1)
            self._kept = found, ended + rest
        return self._kept[0]


class FleetReader:
    """Reads snapshots. Safe to share between threads, which then read one after the other.

    It blocks, so call it in a thread. If very many turns wait and Redis takes long to count them, a
    snapshot has counts from some seconds ago.
    """

    def __init__(
        self, settings: Settings, store: TurnStore, *, traffic: Traffic | None = None
    ) -> None:
        """Create the reader; it connects when first used.

        Args:
            settings: Where Redis and the broker are, and how many queues there are.
            store: The turn store; `close` leaves it open.
            traffic: The fleet's shared state of its providers; read from Redis when not given.
        """
        self._settings = settings
        self._store = store
        self._traffic = traffic or RedisTraffic(settings)
        self._app: Any = None
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._turns = _Kept(self._read_turns, lambda turns: turns.missing)
        self._failures = _Kept(self._read_failures, lambda failed: failed.missing)
        self._question = 0

    def read(self, *, ask_workers: bool = True) -> FleetSnapshot:
        """Read a snapshot. It takes about a second, the time that workers have to answer.

        Args:
            ask_workers: Whether to ask the workers. If not, the snapshot contains their last
                answers, and the call takes milliseconds.

        Returns:
            The snapshot. It omits what cannot be reached, and says why. A cluster shard that does
            not answer delays the call by at most `redis_timeout`.
        """
        with self._lock:
            fault = self._ask_workers() if ask_workers else None
            snapshot = FleetSnapshot(
                taken_at=time.time(),
                asked=self._question > 0,
                workers=self._workers(),
                broker_fault=fault,
            )
            try:
                return self._with_store(snapshot)
            except AgentAPIError as error:
                return replace(snapshot, redis_fault=str(error))

    def close(self) -> None:
        """Close the connections; the store stays open."""
        with self._lock:
            self._traffic.close()
            app, self._app = self._app, None
            if app is not None:
                app.close()

    def _ask_workers(self) -> str | None:
        """Ask all workers for their activity; returns an error text if that failed."""
        self._question += 1
        if self._app is None:
            self._app = producer_app(self._settings)
        try:
            replies = ask_workers(self._app, self._settings, COMMAND, timeout=ANSWER_TIMEOUT)
        except BrokerUnavailable as error:
            return str(error)
        now = time.monotonic()
        for reply in replies:
            for name, answer in reply.items():
                activity = WorkerActivity.from_json(answer)
                process = activity.process if activity is not None else ""
                self._seen[name, process] = _Seen(
                    activity=activity, question=self._question, at=now
                )
        return None

    def _workers(self) -> list[FleetWorker]:
        now = time.monotonic()
        answered = {name for (name, _), seen in self._seen.items() if self._is_new(seen)}
        self._seen = {
            key: seen
            for key, seen in self._seen.items()
            # A worker that was restarted under the same name replaces the earlier one.
            if self._is_new(seen) or (key[0] not in answered and now - seen.at < REMEMBERED)
        }
        return [
            FleetWorker(
                name=name,
                activity=seen.activity,
                silent=0.0 if self._is_new(seen) else max(now - seen.at, 0.001),
            )
            for (name, _), seen in sorted(self._seen.items(), key=lambda item: item[0])
        ]

    def _is_new(self, seen: _Seen) -> bool:
        return seen.question == self._question

    def _with_store(self, snapshot: FleetSnapshot) -> FleetSnapshot:
        turns, failed = self._turns.get(), self._failures.get()
        gaps = [str(missing) for missing in (turns.missing or failed.missing,) if missing]
        try:
            turns = replace(turns, since_sweep=self._store.since_sweep())
        except StoreUnavailable:
            gaps.append("the time of the last sweep for lost turns is unknown")
        providers, unknown = self._providers(snapshot.workers)
        if unknown:
            gaps.append(f"the state of the providers {', '.join(unknown)} is unknown")
        return replace(
            snapshot,
            turns=turns,
            providers=providers,
            failures=failed.items if self._settings.list_limit else None,
            gaps=gaps,
        )

    def _read_turns(self) -> FleetTurns:
        return turns_of(self._store.backlog(), self._settings.queues)

    def _providers(self, workers: Sequence[FleetWorker]) -> tuple[list[FleetProvider], list[str]]:
        """The providers, and the names of those whose shard does not answer."""
        limits: dict[str, ProviderUse] = {}
        for worker in workers:
            if worker.activity is not None:
                limits |= worker.activity.providers
        names = sorted(limits)
        try:
            return self._standings(names, limits), []
        except StoreUnavailable:
            found: list[FleetProvider] = []
            unknown: list[str] = []
        for name in names:
            try:
                found += self._standings([name], limits)
            except StoreUnavailable:
                unknown.append(name)
        return found, unknown

    def _standings(
        self, names: Sequence[str], limits: Mapping[str, ProviderUse]
    ) -> list[FleetProvider]:
        if not names:
            return []
        limited = [name for name in names if limits[name] != ProviderUse()]
        standings, used = self._traffic.standings(names), self._traffic.used(limited)
        return [
            FleetProvider(
                name=name,
                held=standings[name].held,
                open=standings[name].open,
                requests=used[name].requests if name in used else 0,
                tokens=used[name].tokens if name in used else 0,
                limit=limits[name],
            )
            for name in names
        ]

    def _read_failures(self) -> Paged[TurnSummary]:
        if not self._settings.list_limit:
            return Paged(items=(), cursor=None)
        query = TurnQuery(statuses=frozenset({TurnStatus.FAILED}))
        # Lists are sorted by time of acceptance, which approximates the time of the end.
        page = self._store.lists.turns(query, _LOOKED_AT, partial=True)
        found = sorted(page.items, key=lambda turn: turn.ended_at or 0.0, reverse=True)
        return replace(page, items=found[:FAILURES])


def turns_of(backlog: Backlog, queues: int) -> FleetTurns:
    """Summarise a backlog, with the ready turns counted by queue.

    Args:
        backlog: The turns by what they wait for.
        queues: How many queues the fleet has.
    """
    ready = Counter(dict.fromkeys(queue_names(queues), 0))
    for partition, turns in backlog.ready.items():
        ready[queue_of_partition(partition, queues)] += turns
    return FleetTurns(
        ready=ready.total(),
        ready_by_queue=dict(ready),
        running=backlog.running,
        parked=dict(backlog.parked),
        oldest=backlog.first_ready,
        oldest_seconds=backlog.oldest_ready,
        missing=backlog.missing,
    )
