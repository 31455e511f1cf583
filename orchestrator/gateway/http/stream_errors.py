"""Errors with which a stream ends before its turn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agentapi.errors import AgentAPIError
from agentapi.logs import line
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.errors import Problem, problem_of

log = logging.getLogger("agentapi.gateway")

CLOSED: Final[Mapping[Closed, str]] = {
    Closed.SLOW: "the client read the events too slowly",
    Closed.STOPPING: "this gateway is shutting down",
    Closed.UNREADABLE: "the turn's stored events cannot be read",
}


def stream_problem(error: Exception, tenant: str, turn_id: str) -> Problem:
    """Convert an error in the middle of a stream for its client.

    For an error that is not agentapi's own, only the log has the details.
    """
    problem = problem_of(error, tenant)
    if isinstance(error, AgentAPIError):
        return problem
    log.error(line("stream.crashed", turn_id=turn_id, error=type(error).__name__))
    return replace(problem, message="the gateway failed")
