"""Turns and conversations as the objects of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentapi.conversation.messages import Usage
from agentapi.turns import RequestOptions, Turn, TurnStatus
from orchestrator.gateway.http.errors import public_text
from orchestrator.gateway.ids import response_id, turn_key
from orchestrator.gateway.openai.items import output_items
from orchestrator.gateway.openai.request_options import shown_format
from orchestrator.gateway.turn_labels import labels_of, metadata_of

_NOTHING: Final = RequestOptions()

STATUS: Final[Mapping[TurnStatus, str]] = {
    TurnStatus.QUEUED: "queued",
    TurnStatus.RUNNING: "in_progress",
    TurnStatus.PARKED: "in_progress",
    TurnStatus.COMPLETED: "completed",
    TurnStatus.FAILED: "failed",
    TurnStatus.CANCELLED: "cancelled",
}

_ERROR_CODES: Final = {
    "provider_unavailable": "rate_limit_exceeded",
    "invalid_message": "invalid_prompt",
}
"""OpenAI's clients know a closed set of codes; the message has ours."""


def response_object(turn: Turn, conversation_id: str) -> dict[str, Any]:
    """A turn as a response, in its present state.

    Args:
        turn: The turn.
        conversation_id: The public id of its conversation.
    """
    labels, options = labels_of(turn), turn.options or _NOTHING
    sampling = options.sampling
    error = None
    if turn.error is not None:
        code = _ERROR_CODES.get(turn.error.code, "server_error")
        why = public_text(turn.error.message, turn.error.code)
        error = {"code": code, "message": f"{turn.error.code}: {why}"}
    completed = turn.status is TurnStatus.COMPLETED
    return {
        "id": response_id(turn.turn_id),
        "object": "response",
        "created_at": int(turn.created_at),
        "completed_at": int(turn.ended_at) if completed and turn.ended_at else None,
        "status": STATUS[turn.status],
        "background": labels.background,
        "error": error,
        "incomplete_details": None,
        "instructions": options.instructions,
        "max_output_tokens": sampling.max_output_tokens,
        "model": turn.agent,
        "output": output_items(turn.messages) if completed else [],
        "parallel_tool_calls": True,
        "previous_response_id": response_id(labels.previous) if labels.previous else None,
        "conversation": None if labels.implicit else {"id": conversation_id},
        "reasoning": {"effort": sampling.reasoning_effort, "summary": None},
        "store": options.store,
        "temperature": sampling.temperature,
        "text": _text(options),
        "tool_choice": "auto",
        "tools": [],
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": _response_usage(turn.usage) if turn.status.ended else None,
        "user": labels.user,
        "safety_identifier": labels.safety_identifier,
        "metadata": metadata_of(turn),
    }


def _text(options: RequestOptions) -> dict[str, Any]:
    text: dict[str, Any] = {"format": shown_format(options.output)}
    if options.sampling.verbosity is not None:
        text["verbosity"] = options.sampling.verbosity
    return text


def _response_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Token counts in the form of chat completions."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def chat_object(turn: Turn) -> dict[str, Any]:
    """A completed turn as a chat completion."""
    message = {"role": "assistant", "content": turn.text or "", "refusal": None}
    return {
        "id": chat_id(turn.turn_id),
        "object": "chat.completion",
        "created": int(turn.created_at),
        "model": turn.agent,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": chat_usage(turn.usage),
    }


def chat_id(turn_id: str) -> str:
    """The id of a turn as a chat completion."""
    return f"chatcmpl-{turn_key(turn_id)}"
