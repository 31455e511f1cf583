"""Turns and conversations as the objects of OpenAI's API."""

from __future__ import annotations

from typing import Any, Final

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import Usage
from agentapi.turns import RequestOptions, Turn, TurnStatus
from orchestrator.gateway.ids import response_id, turn_key
from orchestrator.gateway.openai.endings import (
    chat_finish_reason,
    incomplete_details,
    response_error,
    response_status,
)
from orchestrator.gateway.openai.items import output_items
from orchestrator.gateway.openai.request_options import shown_format
from orchestrator.gateway.turn_labels import labels_of, metadata_of

_NOTHING: Final = RequestOptions()


def response_object(turn: Turn, conversation_id: str) -> dict[str, Any]:
    """A turn as a response, in its present state.

    Args:
        turn: The turn.
        conversation_id: The public id of its conversation.
    """
    labels, options = labels_of(turn), turn.options or _NOTHING
    sampling = options.sampling
    replied = turn.status is TurnStatus.COMPLETED
    status = response_status(turn)
    ended_at = turn.ended_at if status == "completed" else None
    return {
        "id": response_id(turn.turn_id),
        "object": "response",
        "created_at": int(turn.created_at),
        "completed_at": int(ended_at) if ended_at else None,
        "status": status,
        "background": labels.background,
        "error": None if turn.error is None else response_error(turn.error),
        "incomplete_details": incomplete_details(turn),
        "instructions": options.instructions,
        "max_output_tokens": sampling.max_output_tokens,
        "model": turn.agent,
        "output": output_items(turn.messages) if replied else [],
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
        "usage": response_usage(turn.usage) if turn.status.ended else None,
        "user": labels.user,
        "safety_identifier": labels.safety_identifier,
        "metadata": metadata_of(turn),
    }


def _text(options: RequestOptions) -> dict[str, Any]:
    text: dict[str, Any] = {"format": shown_format(options.output)}
    if options.sampling.verbosity is not None:
        text["verbosity"] = options.sampling.verbosity
    return text


def response_usage(usage: Usage) -> dict[str, Any]:
    """Token counts in the form of responses."""
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
    refused = turn.finish_reason is FinishReason.REFUSAL
    message = {
        "role": "assistant",
        "content": None if refused else turn.text or "",
        "refusal": turn.text if refused else None,
    }
    finish = chat_finish_reason(turn)
    return {
        "id": chat_id(turn.turn_id),
        "object": "chat.completion",
        "created": int(turn.created_at),
        "model": turn.agent,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": chat_usage(turn.usage),
    }


def chat_id(turn_id: str) -> str:
    """The id of a turn as a chat completion."""
    return f"chatcmpl-{turn_key(turn_id)}"
