"""A claimed turn on its way through a worker, and what can become of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentapi.agents.definition import AgentDefinition
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import TurnSuspended
from agentapi.errors import LeaseLost, StoreUnavailable, TurnParked
from agentapi.logs import LogLine, line
from agentapi.stores import Claim, Ending
from workers.turns.running import RunningTurn

Outcome: TypeAlias = Ending | TurnParked | TurnSuspended | LeaseLost | StoreUnavailable | None
"""What becomes of a claimed turn; None when it is to be handed back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedTurn:
    """A turn that this process may carry on."""

    agent: AgentDefinition | None
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
