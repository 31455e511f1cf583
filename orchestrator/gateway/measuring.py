"""The gateway's metrics: its requests, its event loop, and the turns of the whole fleet.

Only gateways export the gauges of the fleet, since all workers would export the same: under `sum()`
these would add up. Gateways read them when they are asked, and remember them for a while, so that
the cost for Redis does not grow with the number of those who ask.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from agentapi import AgentAPIError
from agentapi.broker.wire import queue_names, queue_of_partition
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import (
    GATEWAY_REFUSALS,
    GATEWAY_REQUEST_DURATION,
    GATEWAY_REQUESTS,
    GATEWAY_STREAMS,
    LOOP_LAG,
    OLDEST_READY,
    STORE_UP,
    SWEEP_AGE,
    TURNS_PARKED,
    TURNS_READY,
    TURNS_RUNNING,
    UNKNOWN,
)
from agentapi.metrics.recorder import Metric
from agentapi.metrics.server import MetricsServer
from agentapi.stores import Backlog
from agentapi.supervision import Service
from orchestrator.gateway.settings import GatewaySettings

log = logging.getLogger("agentapi.gateway")

REMEMBERED: Final = 5.0
"""Seconds for which the gauges of the fleet are remembered."""

REASONS: Final = ("provider", "tool_server", "approval", "client", "children")
"""What parked turns may wait for; what a newer release adds is ``other``."""

TICK: Final = 1.0

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REFUSALS: Final = frozenset({401, 403, 413, 429})


class _Store(Protocol):
    def backlog(self) -> Backlog: ...

    def since_sweep(self) -> float | None: ...


class FleetGauges:
    """A collector of prometheus_client: the turns of the whole fleet."""

    def __init__(
        self, store: _Store, queues: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read nothing yet.

        Args:
            store: Where the turns are.
            queues: How many queues the fleet has.
            clock: Returns seconds.
        """
        self._store = store
        self._queues = queues
        self._clock = clock
        # Those who ask at the same time wait for one reading.
        self._lock = threading.Lock()
        self._families: list[Any] = []
        self._until = 0.0

    def collect(self) -> Iterable[Any]:
        """The gauges; without those of turns while Redis does not answer."""
        with self._lock:
            now = self._clock()
            if not self._families or now >= self._until:
                self._families = self._read()
                self._until = self._clock() + REMEMBERED
            return list(self._families)

    def _read(self) -> list[Any]:
        try:
            backlog, since_sweep = self._store.backlog(), self._store.since_sweep()
        except AgentAPIError as error:
            log.warning(line("metrics.fleet_unknown", error=error.code))
            return [_family(STORE_UP, {(): 0})]
        ready = dict.fromkeys(queue_names(self._queues), 0)
        for partition, turns in backlog.ready.items():
            ready[queue_of_partition(partition, self._queues)] += turns
        parked = Counter(dict.fromkeys(REASONS, 0))
        for reason, turns in backlog.parked.items():
            parked[reason if reason in REASONS else "other"] += turns
        families = [
            _family(STORE_UP, {(): 1}),
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
        streams: Returns how many streams and waiting requests are open.

    Raises:
        ConfigurationError: The port cannot be taken, or prometheus_client is not installed.
    """
    if settings.gateway_metrics_port is None:
        return None
    server = MetricsServer(
        settings.metrics_host,
        settings.gateway_metrics_port,
        setting="AGENTAPI_GATEWAY_METRICS_PORT",
        collectors=partial(_collectors, store, settings.queues),
    )
    server.recorder.watch(GATEWAY_STREAMS, streams)
    return server


def _collectors(store: _Store, queues: int) -> list[FleetGauges]:
    return [FleetGauges(store, queues)]


def count_request(method: str, route: str, status: int | None, seconds: float) -> None:
    """Count a request.

    Args:
        method: Its method, whatever the client sent.
        route: The template of its route, never its path.
        status: Of the answer; None when the connection ended before.
        seconds: From its head to the end of its answer.
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
    """Measure how late the event loop is; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while not service.stopping:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        recorder().observe(LOOP_LAG, loop.time() - due)
        service.progress()
