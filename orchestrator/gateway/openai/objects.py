"""Turns and conversations as the objects of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import Usage
from agentapi.turns import RequestOptions, TurnStatus
from orchestrator.gateway.ids import response_id, turn_key
from orchestrator.gateway.openai.endings import (
    chat_finish_reason,
    incomplete_details,
    response_error,
    response_status,
)
from orchestrator.gateway.openai.function_tools import shown_tools
from orchestrator.gateway.openai.parts import Part
from orchestrator.gateway.openai.request_options import shown_format
from orchestrator.gateway.turn_labels import Labels

_NOTHING: Final = RequestOptions()


def response_object(part: Part, conversation_id: str) -> dict[str, Any]:
    """A part of a turn as a response, in its current state.

    Args:
        part: The part.
        conversation_id: The public id of its conversation.
    """
    turn, labels = part.turn, part.labels
    options = part.options or _NOTHING
    sampling = options.sampling
    replied = part.status is TurnStatus.COMPLETED
    status = response_status(turn) if part.ends is None else "completed"
    ended_at = part.ended_at if status == "completed" else None
    return {
        "id": response_id(turn.turn_id, part.number),
        "object": "response",
        "created_at": int(part.created_at),
        "completed_at": int(ended_at) if ended_at else None,
        "status": status,
        "background": labels.background,
        "error": response_error(turn.error) if turn.error and part.ends is None else None,
        "incomplete_details": incomplete_details(turn) if part.ends is None else None,
        "instructions": options.instructions,
        "max_output_tokens": sampling.max_output_tokens,
        "model": turn.agent,
        "output": part.output() if replied else [],
        "previous_response_id": _previous(part, labels),
        "conversation": None if labels.implicit else {"id": conversation_id},
        "reasoning": {"effort": sampling.reasoning_effort, "summary": None},
        "store": options.store,
        "temperature": sampling.temperature,
        "text": _text(options),
        **shown_tools(part.client_tools),
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": response_usage(part.usage) if part.status.ended else None,
        "user": labels.user,
        "safety_identifier": labels.safety_identifier,
        "metadata": part.metadata,
    }


def _previous(part: Part, labels: Labels) -> str | None:
    if part.number:
        return response_id(part.turn.turn_id, part.number - 1)
    return response_id(labels.previous) if labels.previous else None


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


def chat_finish(part: Part) -> str:
    """The finish reason of a completed part as a chat completion."""
    if part.calls():
        return "tool_calls"
    return chat_finish_reason(part.turn) if part.ends is None else "stop"


def chat_object(part: Part) -> dict[str, Any]:
    """A completed part of a turn as a chat completion."""
    calls = [chat_call(item) for item in part.calls()]
    refused = part.finish_reason is FinishReason.REFUSAL
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused else part.text,
        "refusal": part.text if refused else None,
    }
    if calls:
        message |= {"content": part.text or None, "tool_calls": calls}
    finish = chat_finish(part)
    return {
        "id": chat_id(part.turn.turn_id, part.number),
        "object": "chat.completion",
        "created": int(part.created_at),
        "model": part.turn.agent,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": chat_usage(part.usage),
    }


def chat_call(item: Mapping[str, Any]) -> dict[str, Any]:
    """A function call in the form of chat completions."""
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def chat_id(turn_id: str, part: int = 0) -> str:
    """The id of a part of a turn as a chat completion."""
    more = f"_{part}" if part else ""
    return f"chatcmpl-{turn_key(turn_id)}{more}"
