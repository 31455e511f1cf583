"""Why a model stopped, and what becomes of a reply that is not complete."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    """The response is complete."""
    TOOL_CALLS = "tool_calls"
    """The response is complete, and calls tools."""
    LENGTH = "length"
    """The response was cut off: at the limit of the request, of the model, or of its context."""
    CONTENT_FILTER = "content_filter"
    """The provider's filter ended or withheld the response."""
    REFUSAL = "refusal"
    """The model refused to answer, and its text says so."""


class OnIncomplete(StrEnum):
    """What a turn does with a reply that the model did not complete."""

    ACCEPT = "accept"
    """The turn completes with what there is; `TurnResult.finish_reason` says why it ended."""
    CONTINUE = "continue"
    """A reply that was cut off is continued by the model; others are accepted."""
    FAIL = "fail"
    """The turn fails with `IncompleteReply`."""


COMPLETE: Final = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})
"""The reasons of a complete response."""

CUT: Final = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})
"""The reasons of a response of which a part is missing; a refusal is whole."""

CONTINUE: Final = (
    "Your last message was cut off. Continue it from exactly where it ends: begin with the next "
    "character, also if that is a space, a line break, or in the middle of a word. Do not repeat "
    "anything, and do not comment on this request."
)
"""What the model is asked after a part of its reply. It is not kept in the history."""


def finish_reason_of(value: object) -> FinishReason:
    """Read a reason; one that this release does not know counts as a normal stop."""
    try:
        return FinishReason(value)  # type: ignore[arg-type]
    except ValueError:
        return FinishReason.STOP
