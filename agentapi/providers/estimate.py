"""Estimates of what a model call will cost, before the provider counts its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from agentapi.conversation.messages import Message
from agentapi.conversation.window import BYTES_PER_TOKEN, estimate_tokens
from agentapi.providers.base import ToolSpec


def estimate_request(
    system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]
) -> int:
    """Estimate how many tokens a whole model call costs."""
    size = len(system_prompt.encode()) + sum(len(tool.description) + 200 for tool in tools)
    return size // BYTES_PER_TOKEN + estimate_tokens(messages)
