"""What servers and providers answer, looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.errors import ProviderUnavailable
from agentapi.providers.base import ModelResponse

MOST_TOKENS: Final = 10**12
"""What a server says beyond that is not a count: as one, it would use up every budget."""

LONGEST_ANSWER: Final = 33_554_432
"""Characters of one answer; no model writes that much, a server with a fault may."""


def count(value: object) -> int:
    """A number of tokens as a server gives it; 0 for what is none."""
    if type(value) is int and 0 <= value <= MOST_TOKENS:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    # Comparisons are false for NaN.
    return int(value) if 0 <= value <= MOST_TOKENS else 0


def checked(response: ModelResponse, provider: str) -> ModelResponse:
    """The response, with counts that are counts.

    Args:
        response: What the provider gave.
        provider: Its name, for the error.

    Raises:
        ProviderUnavailable: It is not made of what a response is made of.
    """
    if not _is_whole(response):
        raise ProviderUnavailable(
            f"provider {provider!r} gave a response whose parts have the wrong types: expected "
            "text, calls with an id, a name and arguments, and counts of tokens",
            provider=provider,
        )
    usage = _counted(response.usage)
    return response if usage is response.usage else replace(response, usage=usage)


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
