"""A claimed turn on its way through a worker."""

from __future__ import annotations

from dataclasses import dataclass

from agentapi.engine.progress import TurnProgress
from agentapi.logs import LogLine, line
from agentapi.stores import Claim
from workers.turns.running import RunningTurn
from workers.turns.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedTurn:
    """A turn that this process may run.

    Attributes:
        work: What is done for turns of its kind.
        claim: What the store gave with the lease.
        running: By which it is stopped from outside.
        progress: Its steps so far; grows while it runs.
    """

    work: Work
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
