"""A worker's answer to `agentapi doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from agentapi.checks.report import COMMAND, WorkerReport, archive_mark, shared_settings
from agentapi.decoding.records import PROTOCOL
from agentapi.urls import without_password

_TWINS_ANSWER_WITHIN: Final = 1.0
"""Seconds."""


def report_of(state: Any) -> WorkerReport:
    """The worker's report. Does not block.

    Args:
        state: Celery's state of the remote control.
    """
    app = state.app
    runtime, consumer = app.runtime, state.consumer
    pool, tasks = type(consumer.pool), consumer.task_consumer
    checked = runtime.self_check.results()
    return WorkerReport(
        process=runtime.process,
        version=version("agentapi"),
        protocol=PROTOCOL,
        pool=f"{pool.__module__}:{pool.__name__}",
        agents=sorted(runtime.agents),
        queues=[queue.name for queue in tasks.queues] if tasks else [],
        accepting=runtime.accepting(),
        services=runtime.supervisor.status(),
        settings=shared_settings(app.settings),
        redis=without_password(app.settings.redis_url),
        server=checked.server,
        archive=archive_mark(app.settings),
        ahead=checked.ahead,
        checks=checked.rounds,
        checking=checked.checking,
        findings=checked.findings,
    )


def twins_of(app: Any, name: str) -> Sequence[str]:
    """Ask for other worker processes of this name. Takes a second.

    Args:
        app: The worker's app.
        name: Its node name.

    Returns:
        Their `WorkerReport.process`; empty if the broker cannot be reached.
    """
    try:
        replies = app.control.broadcast(
            COMMAND, destination=[name], reply=True, timeout=_TWINS_ANSWER_WITHIN
        )
    except Exception:
        # The worker itself reports that the broker is unavailable.
        return []
    answers = [answer for reply in replies or () for answer in reply.values()]
    processes = {answer["process"] for answer in answers if "process" in answer}
    return sorted(processes - {app.runtime.process})
