"""How many tokens a model call will cost, before the provider counts them."""

from __future__ import annotations

from collections.abc import Sequence

from agentapi.conversation.messages import Message
from agentapi.conversation.window import BYTES_PER_TOKEN, estimate_tokens
from agentapi.providers.base import ToolSpec


def estimate_request(
    system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]
) -> int:
    """A rough count of the tokens of a whole model call."""
    size = len(system_prompt.encode()) + sum(len(tool.description) + 200 for tool in tools)
    return size // BYTES_PER_TOKEN + estimate_tokens(messages)
