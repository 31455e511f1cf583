"""Metrics of a process that ends soon, carried to the process that started it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from agentapi.metrics.catalog import CATALOG
from agentapi.metrics.labels import LONGEST
from agentapi.metrics.recorder import Metric, Read, Recorder

RELAYED: Final = "metrics"
"""Key of the observations in a process's answer."""

MOST_BYTES: Final = 40_000
"""Approximate bytes of JSON that a relay keeps; later observations are dropped. A process sends its
answer through a pipe that holds 65,536 bytes."""

_ROOM: Final = 32
"""Bytes of an entry in addition to its texts."""

_BY_NAME: Final = {metric.name: metric for metric in CATALOG}


class Relay:
    """A recorder that keeps its observations as JSON values."""

    on = True

    def __init__(self) -> None:
        self._heard: list[list[Any]] = []
        self._bytes = 0

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """See `Recorder.count`."""
        self._keep(metric, by, labels)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """See `Recorder.observe`."""
        self._keep(metric, seconds, labels)

    def watch(self, metric: Metric, read: Read, *labels: str) -> None:
        """Gauges describe the process, which ends."""

    def heard(self) -> list[list[Any]]:
        """The observations so far: name, number and labels of each."""
        return list(self._heard)

    def _keep(self, metric: Metric, number: float, labels: tuple[str, ...]) -> None:
        # Names longer than this never become values of labels.
        labels = tuple(label[:LONGEST] for label in labels)
        size = _ROOM + len(metric.name) + sum(4 + 2 * len(label) for label in labels)
        if self._bytes + size <= MOST_BYTES:
            self._bytes += size
            self._heard.append([metric.name, number, *labels])


def replay(heard: Iterable[list[Any]], recorder: Recorder) -> None:
    """Pass a relay's observations to a recorder. Names that this release does not know are
    skipped."""
    for name, number, *labels in heard:
        metric = _BY_NAME.get(name)
        if metric is None or len(metric.labels) != len(labels):
            continue
        if metric.kind == "counter":
            recorder.count(metric, *labels, by=number)
        elif metric.kind == "histogram":
            recorder.observe(metric, number, *labels)
