"""Derives findings about a fleet from the workers' reports: what is wrong, and what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from agentapi.broker.wire import queue_names
from agentapi.checks.findings import Finding, Level, fail, ok, warn
from agentapi.checks.queues import queues_remedy
from agentapi.checks.redis_server import clock_finding
from agentapi.checks.report import WorkerReport
from agentapi.decoding.records import PROTOCOL

MAX_SWEEP_AGE: Final = 5.0
"""Seconds since the last complete sweep after which the sweep counts as broken."""

POOL: Final = "workers.celery_ext.pool:TurnPool"
"""The Celery pool that workers must use."""

Reports = Mapping[str, WorkerReport]
"""Reports by worker name."""


def by_name(answers: Sequence[tuple[str, WorkerReport | None]]) -> Reports:
    """Group reports by worker name; processes that share a name get numbers.

    Args:
        answers: See `worker_findings`.
    """
    found: dict[str, WorkerReport] = {}
    for name, report in answers:
        if report is None or report.process in {known.process for known in found.values()}:
            continue
        taken = sum(known == name or known.startswith(f"{name} #") for known in found)
        found[f"{name} #{taken + 1}" if taken else name] = report
    return found


def worker_findings(answers: Sequence[tuple[str, WorkerReport | None]]) -> Iterator[Finding]:
    """Check that workers answer, that their names differ, and that they run the same release.

    Args:
        answers: Pairs of worker name and report; None for an answer that is not a report.
    """
    if not answers:
        yield fail(
            "workers.none",
            "no worker answers: turns are accepted, but wait",
            "Start workers with `agentapi worker`. If workers are running, compare their "
            "AGENTAPI_REDIS_URL and AGENTAPI_BROKER_URL with the output of `agentapi settings` "
            "here.",
        )
        return
    yield ok("workers.answer", ", ".join(sorted({name for name, _ in answers})))
    old = sorted({name for name, report in answers if report is None})
    if old:
        yield warn(
            "workers.old",
            f"{', '.join(old)} cannot be examined: they run an older release",
            "Upgrade and restart them.",
        )
    processes = {(name, report.process) for name, report in answers if report is not None}
    for name, count in sorted(Counter(name for name, _ in processes).items()):
        if count > 1:
            yield warn(
                "workers.same_name",
                f"{count} workers are named {name}: logs and Flower cannot tell them apart",
                "Give each worker on a machine its own --name.",
            )


def fleet_findings(
    reports: Reports,
    queues: int,
    server: str | None = None,
    address: str = "",
    release: str = "",
) -> Iterator[Finding]:
    """Check that the workers are compatible with each other and with this process.

    Args:
        reports: By worker.
        queues: `AGENTAPI_QUEUES` of this process.
        server: Identifies the Redis that this process uses; None if it cannot be reached.
        address: The address of that Redis.
        release: The release of this process; empty to skip the comparison.
    """
    if not reports:
        return
    yield from _agents(reports)
    yield from _releases(reports, release)
    yield from _protocols(reports)
    yield from _pools(reports)
    yield from _queues(reports, queues)
    yield from _servers(reports, server, address)
    yield from _settings(reports)
    yield from _services(reports)


def _agents(reports: Reports) -> Iterator[Finding]:
    everywhere = set.intersection(*(set(report.agents) for report in reports.values()))
    somewhere = {name for report in reports.values() for name in report.agents}
    if not somewhere:
        yield fail(
            "agents.none",
            "the workers have no agents: every turn fails",
            "Set AGENTAPI_AGENTS to your modules where you start the workers.",
        )
        return
    if everywhere == somewhere:
        yield ok("agents.known", ", ".join(sorted(everywhere)))
        return
    for name in sorted(somewhere - everywhere):
        lacking = [worker for worker, report in reports.items() if name not in report.agents]
        yield warn(
            "agents.differ",
            f"agent {name!r} is unknown to {_listed(lacking)}",
            "Start all workers with the same AGENTAPI_AGENTS and the same release of your code.",
        )


def _releases(reports: Reports, here: str) -> Iterator[Finding]:
    by_version = _grouped({worker: report.version for worker, report in reports.items()})
    which = "; ".join(
        f"{version or 'unknown'}: {_listed(names)}" for version, names in sorted(by_version.items())
    )
    if len(by_version) > 1:
        yield warn(
            "workers.releases",
            f"the workers run different releases of agentapi ({which})",
            "Consecutive releases work together. Complete the upgrade.",
        )
    if unknown := by_version.get(""):
        yield warn(
            "workers.unknown_release",
            f"{_listed(unknown)} do not report which release they run",
            "Check what is installed there. Releases that are not consecutive may be incompatible.",
        )
    if here and here not in by_version:
        yield warn(
            "releases.differ",
            f"agentapi here is {here}, but no worker runs that release ({which})",
            "Consecutive releases work together. Upgrade workers first.",
        )


def _protocols(reports: Reports) -> Iterator[Finding]:
    """Check that this process can read the records that the workers write."""
    for worker, report in sorted(reports.items()):
        if report.protocol > PROTOCOL:
            # Turns still run, because the fleet writes only versions that all its workers can read.
            yield warn(
                "workers.protocol",
                f"{worker} knows version {report.protocol} of the turn protocol, but this release "
                f"of agentapi reads versions up to {PROTOCOL}",
                "Upgrade agentapi here before the fleet starts to write that version.",
            )


def _pools(reports: Reports) -> Iterator[Finding]:
    for worker, report in sorted(reports.items()):
        if report.pool != POOL:
            yield fail(
                "workers.pool",
                f"{worker} uses the pool {report.pool}, which cannot run turns",
                "Start it without -P (--pool).",
            )


def _queues(reports: Reports, here: int) -> Iterator[Finding]:
    numbers = {worker: report.settings.get("queues") for worker, report in reports.items()}
    others = {worker: number for worker, number in numbers.items() if number != here}
    if others:
        fleet = Counter(number for number in numbers.values() if number).most_common(1)[0][0]
        which = "; ".join(
            f"{number} at {_listed(names)}" for number, names in sorted(_grouped(others).items())
        )
        yield queues_finding(here, fleet, which)
    served = {queue for report in reports.values() for queue in report.queues}
    sent = set(queue_names(here)) | set(queue_names(max(filter(None, numbers.values()), default=1)))
    missing = sorted(sent - served)
    if missing and not others:
        yield fail(
            "queues.not_consumed",
            f"no worker takes turns from {_listed(missing)}: turns there wait, and the sweep sends "
            "them to the same queue again",
            "Start workers without -Q and -X, with the same AGENTAPI_QUEUES everywhere.",
        )
    if not missing and not others:
        yield ok("queues.consumed", f"{here} queues, each with a worker")


def queues_finding(here: int, fleet: int, which: str) -> Finding:
    """The finding that numbers of queues differ.

    Args:
        here: `AGENTAPI_QUEUES` of this process.
        fleet: The number that most workers have.
        which: The processes whose number differs from this process's.
    """
    return fail(
        "queues.disagree",
        f"AGENTAPI_QUEUES is {here} here, but {which}: turns are sent to queues that no worker "
        "reads, and wait for the sweep",
        f"{queues_remedy(fleet)}.",
    )


def _servers(reports: Reports, server: str | None, address: str) -> Iterator[Finding]:
    if server is None:
        return
    for worker, report in sorted(reports.items()):
        if report.server is not None and report.server != server:
            yield fail(
                "redis.differs",
                f"{worker} uses a different Redis ({report.redis}) from this process ({address}) "
                "and shares only the broker: it never finds turns from here",
                "Set the same AGENTAPI_REDIS_URL everywhere.",
            )


def archive_findings(reports: Reports, here: str) -> Iterator[Finding]:
    """Check that all processes have the same archive.

    Args:
        reports: By worker.
        here: The archive of this process; see `archive_mark`.
    """
    told = {who: mark for who, report in reports.items() if (mark := report.archive) is not None}
    marks = {**told, _HERE: here}
    lacking = [who for who, mark in marks.items() if not mark]
    having = [who for who, mark in marks.items() if mark]
    if lacking and having:
        yield fail(
            "archive.differs",
            f"AGENTAPI_ARCHIVE_URL is set at {_listed(having)}, but not at {_listed(lacking)}, "
            "where archived conversations are not available",
            "Set the same AGENTAPI_ARCHIVE_URL for all workers, gateways and producers.",
        )
    groups = _grouped({who: mark for who, mark in marks.items() if mark})
    if len(groups) > 1:
        which = "; ".join(sorted(_listed(who) for who in groups.values()))
        yield warn(
            "archive.differs",
            f"AGENTAPI_ARCHIVE_URL names different databases ({which}): the others cannot read "
            "what one of them archives, unless these are names of the same database",
            "Set the same AGENTAPI_ARCHIVE_URL for all workers, gateways and producers.",
        )


_HERE: Final = "this process"


def _settings(reports: Reports) -> Iterator[Finding]:
    names = sorted({name for report in reports.values() for name in report.settings} - {"queues"})
    for name in names:
        # A worker of another release may not have the setting.
        values = {
            worker: repr(report.settings[name])
            for worker, report in reports.items()
            if name in report.settings
        }
        groups = _grouped(values)
        if len(groups) > 1:
            which = "; ".join(f"{value}: {_listed(who)}" for value, who in sorted(groups.items()))
            yield warn(
                "settings.differ",
                f"AGENTAPI_{name.upper()} differs between workers ({which})",
                "Set the same value for all workers: a turn may run on any of them.",
            )


def _services(reports: Reports) -> Iterator[Finding]:
    failing = False
    for worker, report in sorted(reports.items()):
        if not report.accepting:
            failing = True
            yield warn(
                "services.not_accepting",
                f"{worker} takes no turns: it is stopping, responds slowly, or its tools hang",
                "Run `celery -A workers inspect services` to see the cause.",
            )
        for service in report.services:
            if service.in_a_row:
                failing = True
                yield fail(
                    "services.failing",
                    f"{service.name} of {worker} failed {service.in_a_row} times in a row "
                    f"({service.last_error})",
                    "See service.failed in its log. The worker exits after ten failures.",
                )
    if not failing:
        yield ok("services.running", "all are running")


def own_findings(reports: Reports) -> Iterator[Finding]:
    """The workers' own findings; equal findings of several workers are merged."""
    found: dict[Finding, list[str]] = defaultdict(list)
    for worker, report in sorted(reports.items()):
        for finding in report.findings:
            # Findings about Redis are the same for every worker, and names are compared in this
            # process.
            if finding.subject not in _ASKED_HERE and finding.code != "workers.same_name":
                found[finding].append(worker)
        if report.ahead is not None:
            clock = clock_finding(report.ahead, f"the clock of {worker}")
            if clock.level is not Level.OK:
                yield clock
    for finding, workers in found.items():
        if finding.level is Level.OK and finding.subject != "providers":
            continue
        yield Finding(
            level=finding.level,
            code=finding.code,
            message=f"{_listed(workers)}: {finding.message}",
            remedy=finding.remedy,
        )
    waiting = [worker for worker, report in reports.items() if not report.checks]
    if waiting:
        yield warn(
            "workers.not_checked",
            f"{_listed(waiting)} did not complete the checks in time",
            "Run doctor again. If this persists, look for check.failed in the log.",
        )


_ASKED_HERE: Final = frozenset({"redis", "persistence", "eviction", "clock", "protocol"})


def sweep_finding(since: float | None, interval: float) -> Finding:
    """Check that the sweep looks for lost turns.

    Args:
        since: Seconds since the last complete sweep; None if there was none.
        interval: Seconds between sweeps.
    """
    if since is not None and since <= max(MAX_SWEEP_AGE, 3 * interval):
        return ok("sweep.alive", f"completed {since:.1f} s ago")
    when = "never completed" if since is None else f"last completed {since:.0f} s ago"
    return fail(
        "sweep.silent",
        f"{when}: turns that are parked, or have lost their wake-up or their worker, are not found",
        "Look for sweep.failed and service.failed in the workers' logs, and restart them.",
    )


def _grouped(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = defaultdict(list)
    for worker, value in sorted(values.items()):
        groups[value].append(worker)
    return groups


_SHOWN: Final = 5


def _listed(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    shown = sorted(names)[:_SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{', '.join(shown)}{more}"
