"""Why a model stopped, and what happens to an incomplete reply."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    """The response is complete."""
    TOOL_CALLS = "tool_calls"
    """The response is complete and calls tools."""
    LENGTH = "length"
    """The response was cut off at a limit: of the request, of the model, or of its context."""
    CONTENT_FILTER = "content_filter"
    """The provider's content filter ended or withheld the response."""
    REFUSAL = "refusal"
    """The model refused to answer, and its text says so."""


class OnIncomplete(StrEnum):
    """What a turn does with a reply that the model did not complete."""

    ACCEPT = "accept"
    """The turn completes with the incomplete reply; `TurnResult.finish_reason` says why it
    ended."""
    CONTINUE = "continue"
    """The model continues a reply that was cut off; other incomplete replies are accepted."""
    FAIL = "fail"
    """The turn fails with `IncompleteReply`."""


COMPLETE: Final = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})
"""Finish reasons of a complete response."""

CUT: Final = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})
"""Finish reasons of a response with a missing part. A refusal is complete."""

CONTINUE: Final = (
    "Your last message was cut off. Continue exactly where it ends: begin with the next character, "
    "even if that is a space, a line break, or in the middle of a word. Do not repeat anything, "
    "and do not comment on this request."
)
"""The prompt that asks the model to continue its reply. It is not kept in the history."""


def finish_reason_of(value: object) -> FinishReason:
    """Read a reason; one that this release does not know counts as a normal stop."""
    try:
        return FinishReason(value)  # type: ignore[arg-type]
    except ValueError:
        return FinishReason.STOP
