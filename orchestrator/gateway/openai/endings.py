"""Translates the ends of turns to OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentapi.conversation.finish import FinishReason
from agentapi.turns import Turn, TurnError, TurnStatus
from orchestrator.gateway.http.errors import failure_status, public_text

_INCOMPLETE: Final[Mapping[FinishReason, str]] = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}

_STATUS: Final[Mapping[TurnStatus, str]] = {
    TurnStatus.QUEUED: "queued",
    TurnStatus.RUNNING: "in_progress",
    TurnStatus.PARKED: "in_progress",
    TurnStatus.COMPLETED: "completed",
    TurnStatus.FAILED: "failed",
    TurnStatus.CANCELLED: "cancelled",
}

_TOO_MANY_REQUESTS: Final = 429


def is_cut(reason: FinishReason | None) -> bool:
    """Whether a text was cut off; a refusal is complete."""
    return reason in _INCOMPLETE


def response_status(turn: Turn) -> str:
    """The status of a response."""
    return "incomplete" if is_cut(turn.finish_reason) else _STATUS[turn.status]


def incomplete_details(turn: Turn) -> dict[str, str] | None:
    """Why a response is incomplete; None if it is not."""
    reason = _INCOMPLETE.get(turn.finish_reason) if turn.finish_reason else None
    return None if reason is None else {"reason": reason}


def chat_finish_reason(turn: Turn) -> str:
    """The finish reason of a chat completion; a refusal is a field of its message."""
    reason = turn.finish_reason
    return reason.value if reason is not None and is_cut(reason) else "stop"


def goes_on(step: Mapping[str, Any]) -> bool:
    """Whether a step's text continues in the next step, according to its event."""
    return step.get("finish_reason") == FinishReason.LENGTH and not step["tools"]


def response_error(error: TurnError) -> dict[str, str]:
    """Why a response failed. OpenAI's clients know a fixed set of codes; the message contains
    ours."""
    code = "server_error"
    if error.status == _TOO_MANY_REQUESTS:
        code = "rate_limit_exceeded"
    elif failure_status(error.code)[0] == 400:
        code = "invalid_prompt"
    return {"code": code, "message": error_text(error)}


def chat_error(turn: Turn) -> dict[str, Any]:
    """The last chunk of a completion without a reply."""
    code = turn.error.code if turn.error else turn.status.value
    message = "the turn was cancelled" if turn.error is None else error_text(turn.error)
    _, kind = failure_status(code)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_text(error: TurnError) -> str:
    """A turn's error text for clients."""
    return f"{error.code}: {public_text(error.message, error.code)}"
