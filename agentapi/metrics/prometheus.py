"""A recorder that exports its metrics through prometheus_client."""

from __future__ import annotations

import platform
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from importlib.metadata import version
from itertools import accumulate
from typing import Any, Final, TypeAlias

from agentapi.decoding.records import PROTOCOL
from agentapi.extras import needs_extra
from agentapi.metrics.catalog import BUILD_INFO, CATALOG, FLEET
from agentapi.metrics.labels import LabelValues
from agentapi.metrics.recorder import Metric, Read

with needs_extra("metrics", "serving metrics"):
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

FOLD_AT: Final = 100
"""Maximum observations that are buffered before they are added up, unless the metrics are read
earlier. Few, because long-lived objects slow down garbage collection."""

_MOST_KEYS: Final = 10_000
"""Maximum label combinations that are cached; others are looked up each time."""

_Labels: TypeAlias = tuple[str, ...]


class _Cell:
    """A counter (its total is `total`), or a histogram."""

    __slots__ = ("buckets", "total")

    def __init__(self, bounds: int) -> None:
        self.total = 0.0
        self.buckets = [0] * (bounds + 1)


class PrometheusRecorder:
    """See `Recorder`; also a collector of prometheus_client.

    The metrics of prometheus_client take several microseconds per number, several percent of a
    worker's cost of a turn. Here a number is only buffered, and many are added up at a time.
    """

    on = True

    def __init__(self, registry: Any) -> None:
        """Register all metrics except those of the whole fleet.

        Args:
            registry: A `prometheus_client.CollectorRegistry`.

        Raises:
            ValueError: The registry has them already.
        """
        self._values = LabelValues()
        self._heard: deque[tuple[Metric, _Labels, float]] = deque()
        self._metrics = {metric.name: metric for metric in CATALOG if metric not in FLEET}
        # Guards everything below.
        self._lock = threading.Lock()
        self._cells: dict[str, dict[_Labels, _Cell]] = {name: {} for name in self._metrics}
        self._gauges: dict[str, dict[_Labels, Read]] = {name: {} for name in self._metrics}
        self._known: dict[tuple[str, _Labels], _Cell] = {}
        for metric in self._metrics.values():
            # Prometheus does not see an increase in a series that begins with 1.
            for value in metric.begins:
                self._cell(metric, (value,))
            if metric.kind == "counter" and not metric.labels:
                self._cell(metric, ())
        self.watch(
            BUILD_INFO, lambda: 1, version("agentapi"), str(PROTOCOL), platform.python_version()
        )
        registry.register(self)

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """See `Recorder.count`."""
        self._heard.append((metric, labels, by))
        if len(self._heard) >= FOLD_AT:
            self._fold_unless_busy()

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """See `Recorder.observe`."""
        self._heard.append((metric, labels, seconds))
        if len(self._heard) >= FOLD_AT:
            self._fold_unless_busy()

    def watch(self, metric: Metric, read: Read, *labels: str) -> None:
        """See `Recorder.watch`."""
        with self._lock:
            self._gauges[metric.name][self._bounded(metric, labels)] = read

    def describe(self) -> Iterable[Any]:
        """The metrics without values, by which a registry detects duplicate names."""
        return [_family(metric) for metric in self._metrics.values()]

    def collect(self) -> Iterable[Any]:
        """The current metrics."""
        with self._lock:
            self._fold()
            return [self._filled(metric) for metric in self._metrics.values()]

    def _fold_unless_busy(self) -> None:
        # The thread that holds the lock adds up what all threads have buffered.
        if self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def _fold(self) -> None:
        heard, known = self._heard, self._known
        # No more than there is now, because other threads may keep adding.
        for _ in range(len(heard)):
            metric, labels, number = heard.popleft()
            cell = known.get((metric.name, labels)) or self._cell(metric, labels)
            if metric.buckets:
                # The clocks of two machines may disagree.
                number = max(0.0, number)
                cell.buckets[bisect_left(metric.buckets, number)] += 1
            cell.total += number

    def _cell(self, metric: Metric, labels: _Labels) -> _Cell:
        cells, bounded = self._cells[metric.name], self._bounded(metric, labels)
        cell = cells.get(bounded)
        if cell is None:
            cell = cells[bounded] = _Cell(len(metric.buckets))
        if len(self._known) < _MOST_KEYS:
            self._known[metric.name, labels] = cell
        return cell

    def _bounded(self, metric: Metric, labels: _Labels) -> _Labels:
        pairs = zip(metric.labels, labels, strict=True)
        return tuple(self._values.bounded(name, value) for name, value in pairs)

    def _filled(self, metric: Metric) -> Any:
        family = _family(metric)
        for labels, read in self._gauges[metric.name].items():
            family.add_metric(labels, float(read()))
        for labels, cell in self._cells[metric.name].items():
            if metric.buckets:
                bounds = [*map(str, metric.buckets), "+Inf"]
                buckets = list(zip(bounds, accumulate(cell.buckets), strict=True))
                family.add_metric(labels, buckets, cell.total)
            else:
                family.add_metric(labels, cell.total)
        return family


def _family(metric: Metric) -> Any:
    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[metric.kind](metric.name, metric.text, labels=metric.labels)
