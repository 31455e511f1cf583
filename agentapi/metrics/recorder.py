"""The recorder through which the parts of a process report metrics.

Each process has one recorder, as it has one log, because the process is what is measured. Code
looks it up when something happens, so it can be installed at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

Read: TypeAlias = Callable[[], float]
"""Returns the value of a gauge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric; all of them are in `agentapi.metrics.catalog`.

    Attributes:
        name: The name in Prometheus; that of a counter ends in ``_total``.
        kind: Counter, gauge or histogram.
        text: Its description.
        labels: Names of its labels. Each keeps at most `MAX_VALUES` values.
        buckets: Upper bounds of a histogram's buckets, in seconds.
        begins: Values of its only label that are shown as 0 before anything is counted.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    begins: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)


class Recorder(Protocol):
    """Receives counts and measurements. Safe to share between threads; never raises.

    Attributes:
        on: Whether metrics are recorded. Callers check it before they measure something only for
            metrics.
    """

    on: bool

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter.

        Args:
            metric: The counter.
            labels: A value for each of its labels.
            by: How much, 0 or more.
        """
        ...

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add a measured time to a histogram."""
        ...

    def watch(self, metric: Metric, read: Read, *labels: str) -> None:
        """Set the function that returns a gauge's value whenever it is read."""
        ...


class NoMetrics:
    """The recorder of a process that serves no metrics."""

    on = False

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Records nothing."""

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Records nothing."""

    def watch(self, metric: Metric, read: Read, *labels: str) -> None:
        """Records nothing."""


class _Installed:
    """The recorder of this process."""

    def __init__(self) -> None:
        self.recorder: Recorder = NoMetrics()


_installed = _Installed()


def recorder() -> Recorder:
    """The recorder of this process."""
    return _installed.recorder


def install(new: Recorder) -> Recorder:
    """Replace the recorder of this process; returns the one before."""
    before, _installed.recorder = _installed.recorder, new
    return before
