"""A claimed turn on its way through a worker."""

from __future__ import annotations

from dataclasses import dataclass

from agentapi import Agent
from agentapi.engine.progress import TurnProgress
from agentapi.logs import LogLine, line
from agentapi.stores import Claim
from workers.turns.running import RunningTurn


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedTurn:
    """A turn that this process may run.

    Attributes:
        agent: The agent that runs it; None when this worker does not know it.
        claim: What the store gave with the lease.
        running: By which it is stopped from outside.
        progress: Its steps so far; grows while it runs.
    """

    agent: Agent | None
    claim: Claim
    running: RunningTurn
    progress: TurnProgress


def claim_line(action: str, claim: Claim, **more: object) -> LogLine:
    """A log line about a claimed turn."""
    return line(
        action,
        conversation_id=claim.lease.conversation_id,
        turn_id=claim.lease.turn_id,
        attempt=claim.turn.attempt,
        **more,
    )
