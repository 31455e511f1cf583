"""The gateway's metrics: its requests, its event loop, and the turns of the whole fleet.

Only gateways export the gauges of the fleet: all workers would export the same values, which
`sum()` would add up. Gateways read them when they are scraped and cache them for a while, so that
the cost for Redis does not grow with the number of scrapers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from agentapi.broker.wire import queue_names, queue_of_partition
from agentapi.errors import AgentAPIError, StoreUnavailable
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import (
    GATEWAY_REFUSALS,
    GATEWAY_REQUEST_DURATION,
    GATEWAY_REQUESTS,
    GATEWAY_STREAMS,
    LOOP_LAG,
    OLDEST_READY,
    PARTITIONS_MISSING,
    STORE_UP,
    SWEEP_AGE,
    TURNS_PARKED,
    TURNS_READY,
    TURNS_RUNNING,
    UNKNOWN,
)
from agentapi.metrics.recorder import Metric
from agentapi.metrics.server import MetricsServer, Page
from agentapi.stores import Backlog
from agentapi.supervision import Service
from orchestrator.gateway.settings import GatewaySettings

log = logging.getLogger("agentapi.gateway")

REMEMBERED: Final = 5.0
"""Seconds for which the gauges of the fleet are cached."""

REASONS: Final = ("provider", "tool_server", "approval", "client", "children")
"""What parked turns may wait for. Reasons added by a newer release are ``other``."""

TICK: Final = 1.0

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REFUSALS: Final = frozenset({401, 403, 413, 429})


class _Store(Protocol):
    def backlog(self) -> Backlog: ...

    def since_sweep(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """Redis's answer; without a backlog if it did not answer."""

    backlog: Backlog | None
    since_sweep: float | None


class FleetGauges:
    """A collector of prometheus_client: the turns of the whole fleet."""

    def __init__(
        self, store: _Store, queues: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the collector; nothing is read yet.

        Args:
            store: Where the turns are.
            queues: How many queues the fleet has.
            clock: Returns seconds.
        """
        self._store = store
        self._queues = queues
        self._clock = clock
        # Concurrent scrapes share one reading.
        self._lock = threading.Lock()
        self._reading: _Reading | None = None
        self._until = 0.0

    def collect(self) -> Iterable[Any]:
        """The gauges; without those of turns if Redis does not answer.

        If a cluster shard does not answer, they count only the other shards.
        """
        reading = self._read()
        if reading.backlog is None:
            return [_family(STORE_UP, {(): 0})]
        return self._families(reading.backlog, reading.since_sweep)

    def demand(self) -> Page:
        """The turns that need workers, as JSON for autoscalers; 503 if Redis does not answer.

        ``turns`` is the sum of ``turns_ready`` and ``turns_running``. It is also 503 if a shard of
        a cluster does not answer: an incomplete count must not stop workers.
        """
        backlog = self._read().backlog
        if backlog is None or backlog.missing is not None:
            return "503 Service Unavailable", orjson.dumps({"error": "store_unavailable"})
        ready = sum(backlog.ready.values())
        found = {
            "turns": ready + backlog.running,
            "turns_ready": ready,
            "turns_running": backlog.running,
            "oldest_ready_seconds": backlog.oldest_ready,
        }
        return "200 OK", orjson.dumps(found)

    def _read(self) -> _Reading:
        with self._lock:
            if self._reading is None or self._clock() >= self._until:
                self._reading = self._ask()
                self._until = self._clock() + REMEMBERED
            return self._reading

    def _ask(self) -> _Reading:
        since_sweep: float | None = None
        try:
            backlog = self._store.backlog()
        except AgentAPIError as error:
            log.warning(line("metrics.fleet_unknown", error=error.code))
            return _Reading(backlog=None, since_sweep=None)
        # On a cluster, one shard holds this, but the backlog is on all shards.
        with suppress(StoreUnavailable):
            since_sweep = self._store.since_sweep()
        return _Reading(backlog=backlog, since_sweep=since_sweep)

    def _families(self, backlog: Backlog, since_sweep: float | None) -> list[Any]:
        ready = dict.fromkeys(queue_names(self._queues), 0)
        for partition, turns in backlog.ready.items():
            ready[queue_of_partition(partition, self._queues)] += turns
        parked = Counter(dict.fromkeys(REASONS, 0))
        for reason, turns in backlog.parked.items():
            parked[reason if reason in REASONS else "other"] += turns
        families = [
            _family(STORE_UP, {(): 1}),
            _family(PARTITIONS_MISSING, {(): backlog.missing.partitions if backlog.missing else 0}),
            _family(TURNS_READY, {(queue,): turns for queue, turns in ready.items()}),
            _family(TURNS_RUNNING, {(): backlog.running}),
            _family(TURNS_PARKED, {(reason,): turns for reason, turns in parked.items()}),
            _family(OLDEST_READY, {(): backlog.oldest_ready}),
        ]
        if since_sweep is not None:
            families.append(_family(SWEEP_AGE, {(): since_sweep}))
        return families


def _family(metric: Metric, values: dict[tuple[str, ...], float]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family


def metrics_server(
    settings: GatewaySettings, store: _Store, streams: Callable[[], int]
) -> MetricsServer | None:
    """The server of this gateway's metrics; None when no port is set.

    Args:
        settings: The port, and how many queues there are.
        store: Where the turns are.
        streams: Returns the number of open streams and waiting requests.

    Raises:
        ConfigurationError: The port cannot be taken, or prometheus_client is not installed.
    """
    if settings.gateway_metrics_port is None:
        return None
    fleet = FleetGauges(store, settings.queues)
    server = MetricsServer(
        settings.metrics_host,
        settings.gateway_metrics_port,
        setting="AGENTAPI_GATEWAY_METRICS_PORT",
        collectors=lambda: [fleet],
        pages={"/demand": fleet.demand},
    )
    server.recorder.watch(GATEWAY_STREAMS, streams)
    return server


def count_request(method: str, route: str, status: int | None, seconds: float) -> None:
    """Count a request.

    Args:
        method: The method as sent by the client.
        route: The template of the route, never the path.
        status: Status of the answer; None if the connection ended before it.
        seconds: Seconds from the request's head to the end of the answer.
    """
    metrics = recorder()
    if metrics.on:
        code = f"{status // 100}xx" if status is not None else "none"
        shown = method if method in _METHODS else "other"
        metrics.count(GATEWAY_REQUESTS, route, shown, code)
        metrics.observe(GATEWAY_REQUEST_DURATION, seconds, route)


def count_refusal(status: int, code: str | None) -> None:
    """Count an answer that is an error, if it refuses a client."""
    if status in _REFUSALS:
        recorder().count(GATEWAY_REFUSALS, code or UNKNOWN)


async def measure_lag(service: Service) -> None:
    """Measure how late the event loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    while not service.stopping:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        recorder().observe(LOOP_LAG, loop.time() - due)
        service.progress()
