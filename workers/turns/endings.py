"""The endings of turns, in the form that the store keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.engine.progress import TurnProgress
from agentapi.errors import (
    AgentAPIError,
    HookFailed,
    InvalidMessage,
    PoisonTurn,
    ProviderError,
    ProviderRejected,
    TurnVetoed,
)
from agentapi.faults import named, text_of
from agentapi.stores import Claim, Ending
from agentapi.stores.refusals import missed_deadline
from agentapi.turns import TurnError, TurnResult, TurnStatus


def completed(result: TurnResult, asked: AgentDefinition, progress: TurnProgress) -> Ending:
    """The ending of a turn with a reply."""
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
        contexts=progress.contexts,
        last_step=progress.reply,
    )


LONGEST_TEXT: Final = 8_000
"""Maximum characters of an error's text that a turn keeps: some servers answer with whole pages."""

_UNFINISHED: Final = "This call has no result: the turn was ended before it finished."


def stopped(status: TurnStatus, progress: TurnProgress, error: TurnError | None = None) -> Ending:
    """The ending of a turn without a reply. The store decides whether messages stay."""
    return Ending(
        status=status,
        # Each call needs a result, or providers would refuse the history (promise 9).
        messages=progress.messages(unfinished=_UNFINISHED),
        usage=progress.usage,
        steps=len(progress.steps),
        spent=progress.spent,
        error=error,
        last_step=progress.reply,
    )


def error_of(error: BaseException) -> TurnError:
    """An error in the form that a failed turn keeps; unknown faults have the code `internal`."""
    if isinstance(error, AgentAPIError):
        code, text = error.code, text_of(error)
    else:
        code, text = "internal", named(error)
    status = error.status if isinstance(error, ProviderError) else None
    return TurnError(code=code, message=text[:LONGEST_TEXT], status=status)


REFUSALS: Final = (ProviderRejected, TurnVetoed, HookFailed, InvalidMessage, PoisonTurn)
"""Errors that are, or may be, about the message itself. Kept in the history, the message would make
later turns fail too, or would bypass the hook that refused it."""


def failed(error: BaseException, progress: TurnProgress) -> Ending:
    """The ending of a turn that failed."""
    ending = stopped(TurnStatus.FAILED, progress, error_of(error))
    return replace(ending, refused=True) if isinstance(error, REFUSALS) else ending


def broken(fault: BaseException, progress: TurnProgress) -> Ending:
    """The ending of a turn whose real ending cannot be written: its costs without its messages."""
    return Ending(
        status=TurnStatus.FAILED,
        usage=progress.usage,
        steps=len(progress.steps),
        spent=progress.spent,
        error=error_of(fault),
    )


def check_deadline(claim: Claim) -> None:
    """Check that the turn still has time.

    Raises:
        DeadlineExceeded: It should have ended by now.
    """
    # Both are times of Redis: this machine's clock may be wrong.
    if claim.turn.deadline_at is not None and claim.turn.deadline_at <= claim.now:
        raise missed_deadline(claim.turn, claim.now)
