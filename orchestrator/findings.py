"""What can be wrong with an installation, and what to do: decided from collected answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agentapi.supervision import ServiceStatus

CLOCK_TOLERANCE: Final = 2.0
"""Seconds by which two clocks may differ."""

MAX_SWEEP_AGE: Final = 5.0
"""Seconds since the last complete sweep after which something is wrong."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check found, and what to do."""

    level: Level
    check: str
    what: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerReport:
    """A worker's answer about itself.

    Attributes:
        services: Its background services.
        accepting: Whether it takes more turns.
        queues: The queues that it takes turns from.
        clock: The worker's time, in seconds since the epoch, when it answered.
    """

    services: Collection[ServiceStatus]
    queues: Collection[str]
    clock: float
    accepting: bool = True


def persistence_finding(info: dict[str, Any]) -> Finding:
    """Does Redis keep accepted turns when it restarts?"""
    if info.get("aof_enabled"):
        return Finding(level=Level.OK, check="persistence", what="append-only file is on")
    return Finding(
        level=Level.WARN,
        check="persistence",
        what="no append-only file: a restart of Redis loses accepted turns",
        advice="Set appendonly yes and appendfsync everysec (or always).",
    )


def eviction_finding(policy: str, limit: int) -> Finding:
    """Does Redis delete conversations when it is full?"""
    if policy == "noeviction":
        limited = f"maxmemory {limit} bytes" if limit else "no maxmemory"
        return Finding(level=Level.OK, check="eviction", what=f"noeviction, {limited}")
    return Finding(
        level=Level.WARN if limit == 0 else Level.FAIL,
        check="eviction",
        what=f"maxmemory-policy is {policy}: a full Redis deletes turns and histories",
        advice="Set maxmemory-policy noeviction.",
    )


def clock_finding(ahead: float) -> Finding:
    """Does this machine's clock agree with Redis's?"""
    if abs(ahead) <= CLOCK_TOLERANCE:
        return Finding(
            level=Level.OK, check="clock", what=f"{abs(ahead) * 1000:.0f} ms off Redis's clock"
        )
    return Finding(
        level=Level.WARN,
        check="clock",
        what=f"this machine's clock is {ahead:+.1f} s off Redis's clock, which turns use; the "
        "times in logs are wrong by as much",
        advice="Synchronise the clocks, for example with NTP.",
    )


def worker_findings(known: dict[str, list[str]]) -> Iterator[Finding]:
    """Do workers answer, and do all know the same agents?

    Args:
        known: The names of each worker's agents.
    """
    if not known:
        yield Finding(
            level=Level.FAIL,
            check="workers",
            what="no worker answers: turns are accepted, and wait",
            advice="Start some: agentapi worker",
        )
        return
    yield Finding(level=Level.OK, check="workers", what=", ".join(sorted(known)))
    everywhere = set.intersection(*(set(names) for names in known.values()))
    somewhere = set().union(*known.values())
    if not somewhere:
        yield Finding(
            level=Level.FAIL,
            check="agents",
            what="the workers have no agents: every turn fails",
            advice="Set AGENTAPI_AGENTS to your modules where you start the workers.",
        )
    elif missing := somewhere - everywhere:
        yield Finding(
            level=Level.WARN,
            check="agents",
            what=f"some workers do not know {', '.join(sorted(missing))}",
            advice="Start all workers with the same AGENTAPI_AGENTS and the same release.",
        )
    else:
        yield Finding(level=Level.OK, check="agents", what=", ".join(sorted(everywhere)))


def sweep_finding(since: float | None, interval: float) -> Finding:
    """Does a worker look for turns that were left behind?

    Args:
        since: Seconds since the last complete sweep, or None when there was none.
        interval: Seconds between sweeps.
    """
    if since is not None and since <= max(MAX_SWEEP_AGE, 3 * interval):
        return Finding(level=Level.OK, check="sweep", what=f"completed {since:.1f} s ago")
    when = "never completed" if since is None else f"last completed {since:.0f} s ago"
    return Finding(
        level=Level.FAIL,
        check="sweep",
        what=f"{when}: turns that are parked, or lost their wake-up or their worker, are not found",
        advice="Look for sweep.failed and service.failed in the workers' logs, and restart them.",
    )


def service_findings(reports: Mapping[str, WorkerReport]) -> Iterator[Finding]:
    """Are the background services of all workers running?"""
    failing = False
    for worker, report in sorted(reports.items()):
        if not report.accepting:
            failing = True
            yield Finding(
                level=Level.WARN,
                check="services",
                what=f"{worker} takes no turns: it is stopping, answers slowly, or its tools hang",
                advice="Run `celery -A workers inspect services` to see which.",
            )
        for service in report.services:
            if service.in_a_row:
                failing = True
                yield Finding(
                    level=Level.FAIL,
                    check="services",
                    what=f"{service.name} of {worker} failed {service.in_a_row} times in a row "
                    f"({service.last_error})",
                    advice="Its log says where (service.failed). After ten, the worker exits.",
                )
    if reports and not failing:
        yield Finding(level=Level.OK, check="services", what="all are running")


def queue_findings(
    reports: Mapping[str, WorkerReport], queues: Collection[str]
) -> Iterator[Finding]:
    """Does every queue have a worker?

    Args:
        reports: By worker.
        queues: The queues that producers with these settings send to.
    """
    served = {queue for report in reports.values() for queue in report.queues}
    if not reports or served >= set(queues):
        return
    yield Finding(
        level=Level.FAIL,
        check="queues",
        what=f"no worker serves {', '.join(sorted(set(queues) - served))}",
        advice="Use the same AGENTAPI_QUEUES everywhere, and start workers without -Q.",
    )


def worker_clock_findings(
    reports: Mapping[str, WorkerReport], asked: float, answered: float, ahead: float
) -> Iterator[Finding]:
    """Do the workers' clocks agree with Redis's?

    Args:
        reports: By worker.
        asked: When the workers were asked, by this machine's clock.
        answered: When the last of them had answered.
        ahead: Seconds by which this machine is ahead of Redis.
    """
    for worker, report in sorted(reports.items()):
        # The worker answered some time between the two: only what lies outside of them is an error.
        here = min(max(report.clock, asked), answered)
        off = report.clock - here + ahead
        if abs(off) > CLOCK_TOLERANCE:
            yield Finding(
                level=Level.WARN,
                check="clock",
                what=f"the clock of {worker} is about {off:+.0f} s off Redis's clock, which turns "
                "use; the times in its log and in Flower are wrong by as much",
                advice="Synchronise the clocks, for example with NTP.",
            )
