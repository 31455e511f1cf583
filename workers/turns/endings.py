"""How turns end, as the store keeps it."""

from __future__ import annotations

from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.engine.progress import TurnProgress
from agentapi.errors import AgentAPIError
from agentapi.faults import named, text_of
from agentapi.stores import Claim, Ending
from agentapi.stores.refusals import missed_deadline
from agentapi.turns import TurnError, TurnResult, TurnStatus


def completed(result: TurnResult, asked: AgentDefinition, progress: TurnProgress) -> Ending:
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


LONGEST_TEXT: Final = 8_000
"""Characters of an error's text that a turn keeps; servers answer with whole pages."""

_UNFINISHED: Final = "This call has no result: the turn was ended before it finished."


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


def error_of(error: BaseException) -> TurnError:
    """An error as a failed turn keeps it; a fault of unknown kind is `internal`."""
    if isinstance(error, AgentAPIError):
        code, text = error.code, text_of(error)
    else:
        code, text = "internal", named(error)
    return TurnError(code=code, message=text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT])


def failed(error: BaseException, progress: TurnProgress) -> Ending:
    """The end of a turn by an error."""
    return stopped(TurnStatus.FAILED, progress, error_of(error))


def broken(fault: BaseException, progress: TurnProgress) -> Ending:
    """The end of a turn whose end cannot be written: nothing of what it did, but what it cost."""
    return Ending(
        status=TurnStatus.FAILED,
        usage=progress.usage,
        steps=len(progress.steps),
        spent=progress.spent,
        error=error_of(fault),
    )


def check_deadline(claim: Claim) -> None:
    """Raises:
    DeadlineExceeded: The turn should have ended by now.
    """
    if claim.turn.deadline_at is not None and claim.turn.deadline_at <= claim.now:
        raise missed_deadline()
