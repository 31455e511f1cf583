"""A claimed turn on its way through a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agentapi.engine.progress import TurnProgress
from agentapi.logs import LogLine, line
from agentapi.metrics.activity import RunningNow
from agentapi.stores import Claim
from agentapi.turns.kinds import TurnKind
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
        began: When it was claimed, by `time.monotonic`.
    """

    work: Work
    claim: Claim
    running: RunningTurn
    progress: TurnProgress
    began: float = field(default_factory=time.monotonic)

    def now(self) -> RunningNow:
        """What the turn does now. May be called in any thread."""
        turn = self.claim.turn
        tools = {call.name for call in self.progress.open_calls()}
        agent = turn.kind is TurnKind.AGENT
        return RunningNow(
            turn_id=turn.turn_id,
            conversation_id=turn.conversation_id,
            agent=turn.agent,
            tenant_id=turn.tenant_id,
            attempt=turn.attempt,
            steps=len(self.progress.steps),
            seconds=time.monotonic() - self.began,
            doing=("tools" if tools else "model") if agent else turn.kind.value,
            tools=sorted(tools),
        )


def claim_line(action: str, claim: Claim, **more: object) -> LogLine:
    """A log line about a claimed turn."""
    return line(
        action,
        conversation_id=claim.lease.conversation_id,
        turn_id=claim.lease.turn_id,
        attempt=claim.turn.attempt,
        **more,
    )
