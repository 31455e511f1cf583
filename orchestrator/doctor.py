"""Checks an installation: asks Redis, the broker and the workers."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Any, Final

from agentapi import Settings
from agentapi.agents.registry import find_agents
from agentapi.archive.opening import open_archive
from agentapi.checks.findings import Finding, fail, ok, warn
from agentapi.checks.redis_server import RedisFacts, ask_redis, clock_finding, redis_findings
from agentapi.checks.remedies import archive_remedy, server_remedy, setting_remedy
from agentapi.checks.report import COMMAND, WorkerReport, archive_mark
from agentapi.errors import AgentAPIError, ConfigurationError
from agentapi.settings import unknown_variables
from agentapi.stores import RedisTurnStore
from agentapi.urls import without_password
from orchestrator.broker import BROKER_ERRORS, broker_unavailable, producer_app
from orchestrator.findings import (
    archive_findings,
    by_name,
    fleet_findings,
    own_findings,
    queues_finding,
    sweep_finding,
    worker_findings,
)

_ANSWER_TIMEOUT: Final = 1.5
"""Seconds to wait for the workers' answers."""

_CHECK_TIMEOUT: Final = 12.0
"""Seconds that workers have for their checks. An unresponsive provider takes five of them."""

_LOOK_AGAIN: Final = 0.5
"""Seconds between polls for the results of running checks."""

Answers = Sequence[tuple[str, WorkerReport | None]]
"""The report of each worker by name; None for an answer that is not a report."""


def examine(settings: Settings, kind: type[Settings] = Settings) -> Iterator[Finding]:
    """Check everything. Faults are findings, never raised.

    Args:
        settings: The settings of this process.
        kind: The class with all settings that may be set here, for the names of variables.
    """
    yield from _environment(kind)
    yield from _agents_here(settings)
    facts: RedisFacts | None = None
    try:
        facts = ask_redis(settings)
    except AgentAPIError as error:
        yield _redis_unreachable(settings, error)
    else:
        yield from redis_findings(facts)
        yield clock_finding(facts.ahead)
    yield from _archive(settings)
    yield from _workers(settings, facts)


def _redis_unreachable(settings: Settings, error: AgentAPIError) -> Finding:
    remedy = server_remedy(error, settings.redis_url, "AGENTAPI_REDIS_URL")
    return fail("redis.unreachable", str(error), remedy)


def _environment(kind: type[Settings]) -> Iterator[Finding]:
    for unknown in unknown_variables(kind):
        yield warn("settings.unknown", str(unknown), "Correct or remove the variable.")


def _agents_here(settings: Settings) -> Iterator[Finding]:
    """Check that the modules named in this process's settings can be imported. A worker that cannot
    import its modules does not start."""
    if not settings.agents:
        return
    try:
        # A module may print while it is imported, but a program may be reading stdout.
        with contextlib.redirect_stdout(sys.stderr):
            found = find_agents(settings.agents)
    except AgentAPIError as error:
        yield fail(
            "agents.import",
            str(error),
            "Correct AGENTAPI_AGENTS or the module; until then, workers do not start.",
        )
    else:
        names = ", ".join(sorted(agent.name for agent in found))
        yield ok("agents.import", f"{', '.join(settings.agents)} can be imported here: {names}")


def _archive(settings: Settings) -> Iterator[Finding]:
    """Check that archived conversations can be restored."""
    try:
        archive = open_archive(settings)
        if archive is None:
            return
        with closing(archive):
            found = archive.version()
    except ConfigurationError as error:
        yield fail("archive.refused", str(error), archive_remedy(error))
    except AgentAPIError as error:
        yield fail("archive.unreachable", str(error), archive_remedy(error))
    else:
        if found is None:
            yield fail(
                "archive.unmigrated",
                f"the archive at {archive.address} has no tables",
                "Run `agentapi archive migrate`, or let the first process that needs the tables "
                "create them.",
            )
        else:
            yield ok("archive.reachable", f"at {archive.address}, tables of version {found}")


def _workers(settings: Settings, facts: RedisFacts | None) -> Iterator[Finding]:
    try:
        answers = _ask(settings)
    except ConfigurationError as error:
        yield fail("broker.unreachable", str(error), setting_remedy(error))
        return
    except BROKER_ERRORS as error:
        why = str(broker_unavailable(settings, error))
        remedy = server_remedy(error, settings.broker_url, "AGENTAPI_BROKER_URL")
        yield fail("broker.unreachable", why, remedy)
        return
    yield ok("broker.reachable", f"at {without_password(settings.broker_url)}")
    yield from worker_findings(answers)
    if not answers:
        # Without workers, the only source is the number that the last workers stored.
        if facts is not None and facts.queues not in (None, settings.queues):
            which = f"the last workers had {facts.queues}"
            yield queues_finding(settings.queues, int(facts.queues or 0), which)
        return
    reports = by_name(answers)
    server = facts.server if facts is not None else None
    address = facts.address if facts is not None else ""
    release = version("agentapi")
    yield from fleet_findings(reports, settings.queues, server, address, release)
    yield from archive_findings(reports, archive_mark(settings))
    if facts is not None:
        yield from _sweep(settings)
    yield from own_findings(reports)


def _sweep(settings: Settings) -> Iterator[Finding]:
    with closing(RedisTurnStore(settings)) as store:
        try:
            yield sweep_finding(store.since_sweep(), settings.sweep_interval)
        except AgentAPIError as error:
            yield _redis_unreachable(settings, error)


def _ask(settings: Settings) -> Answers:
    """Ask the workers to check themselves, and return their reports."""
    app: Any = producer_app(settings)
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0.1, timeout=settings.redis_timeout
            )
        answers = _broadcast(app, check=True)
        until = time.monotonic() + _CHECK_TIMEOUT
        while any(report and report.checking for _, report in answers):
            if time.monotonic() > until:
                break
            time.sleep(_LOOK_AGAIN)
            answers = _broadcast(app, expected=len(answers)) or answers
        return answers
    finally:
        app.close()


def _broadcast(app: Any, *, check: bool = False, expected: int | None = None) -> Answers:
    """Ask all workers for their reports.

    Args:
        app: Sends the question.
        check: Whether each worker checks itself first.
        expected: How many answers to wait for; when not given, all that arrive in time.
    """
    replies = app.control.broadcast(
        COMMAND,
        arguments={"check": check},
        reply=True,
        timeout=_ANSWER_TIMEOUT,
        limit=expected,
    )
    return [
        (worker, WorkerReport.from_json(answer))
        for reply in replies or ()
        for worker, answer in reply.items()
    ]
