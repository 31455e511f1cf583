"""A recorder that keeps its metrics in a registry of prometheus_client."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any, Final

from agentapi.decoding.records import PROTOCOL
from agentapi.extras import needs_extra
from agentapi.metrics.catalog import BUILD_INFO, CATALOG, FLEET
from agentapi.metrics.labels import LabelValues
from agentapi.metrics.recorder import Metric, Read

with needs_extra("metrics", "serving metrics"):
    from prometheus_client import Counter, Gauge, Histogram

_MOST_CHILDREN: Final = 10_000
"""Combinations of labels that are remembered; further ones are looked up each time."""


class PrometheusRecorder:
    """See `Recorder`.

    Looking up the child of a labelled metric costs as much as counting, so each is kept.
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
        self._parents: dict[str, Any] = {
            metric.name: _parent(metric, registry) for metric in CATALOG if metric not in FLEET
        }
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self.watch(
            BUILD_INFO, lambda: 1, version("agentapi"), str(PROTOCOL), platform.python_version()
        )

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """See `Recorder.count`."""
        child = self._children.get((metric.name, labels)) or self._child(metric, labels)
        child.inc(by)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """See `Recorder.observe`."""
        child = self._children.get((metric.name, labels)) or self._child(metric, labels)
        # Clocks of two machines may disagree.
        child.observe(max(0.0, seconds))

    def watch(self, metric: Metric, read: Read, *labels: str) -> None:
        """See `Recorder.watch`."""
        self._child(metric, labels).set_function(read)

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        parent = self._parents[metric.name]
        if not metric.labels:
            child = parent
        else:
            pairs = zip(metric.labels, labels, strict=True)
            child = parent.labels(*(self._values.bounded(name, value) for name, value in pairs))
        if len(self._children) < _MOST_CHILDREN:
            self._children[metric.name, labels] = child
        return child


def _parent(metric: Metric, registry: Any) -> Any:
    match metric.kind:
        case "counter":
            return Counter(metric.name, metric.text, metric.labels, registry=registry)
        case "gauge":
            return Gauge(metric.name, metric.text, metric.labels, registry=registry)
        case "histogram":
            return Histogram(
                metric.name, metric.text, metric.labels, registry=registry, buckets=metric.buckets
            )
