"""Checks of servers' and providers' answers before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agentapi.conversation.finish import FinishReason, finish_reason_of
from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.errors import ProviderUnavailable
from agentapi.providers.base import ModelResponse

MOST_TOKENS: Final = 10**12
"""Larger token counts are ignored as wrong: they would exhaust every budget."""

LONGEST_ANSWER: Final = 33_554_432
"""Maximum characters of one answer; no model writes that much, but a broken server might."""


def count(value: object) -> int:
    """Read a token count from a server; 0 if it is not a valid count."""
    if type(value) is int and 0 <= value <= MOST_TOKENS:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    # Comparisons are false for NaN.
    return int(value) if 0 <= value <= MOST_TOKENS else 0


def checked(response: ModelResponse, provider: str) -> ModelResponse:
    """Check the types of a response; sanitise its token counts and its finish reason.

    Args:
        response: The provider's response.
        provider: Its name, for errors.

    Raises:
        ProviderUnavailable: A part of the response has the wrong type.
    """
    if not _is_whole(response):
        raise ProviderUnavailable(
            f"provider {provider!r} returned a response with parts of the wrong types: expected "
            "text, calls with an id, a name and arguments, and token counts",
            provider=provider,
        )
    usage, finish = _counted(response.usage), response.finish
    if usage is response.usage and isinstance(finish, FinishReason):
        return response
    return replace(response, usage=usage, finish=finish_reason_of(finish))


def _is_whole(response: ModelResponse) -> bool:
    message = response.message
    return (
        isinstance(message, AssistantMessage)
        and isinstance(message.content, str)
        and isinstance(message.tool_calls, tuple)
        and all(map(_is_call, message.tool_calls))
        and isinstance(message.provider_data, Mapping)
        and isinstance(response.usage, Usage)
    )


def _is_call(call: object) -> bool:
    return (
        isinstance(call, ToolCall)
        and isinstance(call.id, str)
        and isinstance(call.name, str)
        and isinstance(call.arguments, Mapping)
        and isinstance(call.malformed, str | None)
    )


def _counted(usage: Usage) -> Usage:
    sent, got, cached = map(count, (usage.input_tokens, usage.output_tokens, usage.cached_tokens))
    if sent is usage.input_tokens and got is usage.output_tokens and cached is usage.cached_tokens:
        return usage
    return Usage(input_tokens=sent, output_tokens=got, cached_tokens=cached, cost=usage.cost)
