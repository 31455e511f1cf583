"""How a stream tells its client that it ends before the turn does."""

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
    """How a client sees an error in the middle of a stream.

    Only the log says which error it was when it is not one of ours.
    """
    problem = problem_of(error, tenant)
    if isinstance(error, AgentAPIError):
        return problem
    log.error(line("stream.crashed", turn_id=turn_id, error=type(error).__name__))
    return replace(problem, message="the gateway failed")
