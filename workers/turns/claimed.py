"""A claimed turn on its way through a worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentapi.engine.progress import TurnProgress
from agentapi.logs import LogLine, line
from agentapi.metrics.activity import RunningNow
from agentapi.stores import Claim
from agentapi.tracing import NO_SPAN, Span
from agentapi.turns.kinds import TurnKind
from workers.turns.running import RunningTurn
from workers.turns.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedTurn:
    """A turn that this process may run.

    Attributes:
        work: The work for turns of its kind.
        claim: The store's answer to the claim.
        running: The handle by which it is stopped from outside.
        progress: Its steps so far; grows while it runs.
        began: When it was claimed, by `time.monotonic`.
        span: The span of the attempt.
        fields: The fields of every log line of the attempt.
    """

    work: Work
    claim: Claim
    running: RunningTurn
    progress: TurnProgress
    began: float = field(default_factory=time.monotonic)
    span: Span = NO_SPAN
    fields: Mapping[str, object] = field(default_factory=dict)

    def now(self) -> RunningNow:
        """The turn's current activity. May be called in any thread."""
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


def fields_of(claim: Claim, span: Span) -> dict[str, object]:
    """The fields of every log line of an attempt: its ids, and its trace if it is recorded."""
    fields: dict[str, object] = {
        "conversation_id": claim.lease.conversation_id,
        "turn_id": claim.lease.turn_id,
        "attempt": claim.turn.attempt,
    }
    if span.on and (context := span.context) is not None:
        fields["trace_id"] = f"{context.trace_id:032x}"
    return fields


def claim_line(action: str, claim: Claim, **more: object) -> LogLine:
    """A log line about a claimed turn."""
    return line(
        action,
        conversation_id=claim.lease.conversation_id,
        turn_id=claim.lease.turn_id,
        attempt=claim.turn.attempt,
        **more,
    )
