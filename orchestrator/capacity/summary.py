"""The results of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A summary of the values of many turns.

    Attributes:
        median: The median.
        p99: The 99th percentile.
        longest: The largest.
    """

    median: float
    p99: float
    longest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The results of a simulation. Times are in seconds.

    Attributes:
        seconds: The time from the first arrival to the last reply.
        ended: Turns that ended.
        most_in_flight: Maximum number of turns that ran at the same time.
        most_waiting: Maximum number of turns that waited for a worker or a provider at the same
            time.
        delay: Time that turns took in addition to models and tools.
        hottest_shard: Utilisation of the busiest shard, as a share of time.
        mean_shard: Average utilisation of all shards.
        hottest_worker: Utilisation of the busiest worker's core, as a share of time.
        taken_over: Turns that lost their worker.
        recovery: Time from the loss of machines until each lost turn ran again.
        backlog: Seconds from the end of the outage until no turn waited for the provider.
        sweep_behind: Maximum delay of a wake-up because the sweep had to send others first.
        ended_at: When each turn ended, in the order of arrival.
    """

    seconds: float
    ended: int
    most_in_flight: int
    most_waiting: int
    delay: Spread
    hottest_shard: float
    mean_shard: float
    hottest_worker: float
    taken_over: int = 0
    recovery: Spread | None = None
    backlog: float | None = None
    sweep_behind: float = 0.0
    ended_at: Sequence[float] = ()


def spread(values: Sequence[float]) -> Spread:
    """Median, 99th percentile and maximum; zeros if there are no values."""
    if not values:
        return Spread(median=0.0, p99=0.0, longest=0.0)
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(median=ordered[last // 2], p99=ordered[round(last * 0.99)], longest=ordered[last])
