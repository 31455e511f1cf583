"""How turns end, as the store keeps it."""

from __future__ import annotations

from agentapi import Agent
from agentapi.progress import TurnProgress
from agentapi.stores import Ending
from agentapi.turns import TurnError, TurnResult, TurnStatus


def completed(result: TurnResult, asked: Agent, progress: TurnProgress) -> Ending:
    """The end of a turn that gives a reply."""
    return Ending(
        answered_by=result.agent,
        handed_over=result.agent != asked.name,
        structured=result.output is not None,
        status=TurnStatus.COMPLETED,
        messages=result.messages,
        usage=result.usage,
        steps=result.steps,
        spent=progress.spent,
        calibration=progress.calibration,
    )


_UNFINISHED = "This call has no result: the turn was ended before it finished."


def stopped(status: TurnStatus, progress: TurnProgress, error: TurnError | None = None) -> Ending:
    """The end of a turn that gives no reply; whether it leaves anything, the store decides."""
    return Ending(
        status=status,
        messages=progress.messages(unfinished=_UNFINISHED),
        usage=progress.usage,
        steps=len(progress.steps),
        spent=progress.spent,
        error=error,
    )
