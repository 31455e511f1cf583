"""Selects the history that a model call gets: whole turns, never a result without its call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.errors import InvalidAgent

BYTES_PER_TOKEN: Final = 4
"""A common estimate for English text and JSON with current tokenizers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A limit on the history of a model call; the turn's own messages do not count.

    The newest turns that fit are included, each as a whole. The newest turn is included even if it
    exceeds the limit alone. A model never gets more than its context holds.

    Attributes:
        messages: Maximum number of messages, at least 0; None for no limit.
        tokens: Maximum number of estimated tokens, at least 0; None for no limit.
    """

    messages: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("messages", self.messages), ("tokens", self.tokens)):
            if value is not None and value < 0:
                raise InvalidAgent(f"window: {name} is {value}, expected 0 or more, or None")

    def select(self, history: Sequence[Message], calibration: float = 1.0) -> Sequence[Message]:
        """Return the newest turns of `history` that fit, oldest first.

        A turn begins with a user message. Messages before the first user message (the rest of a
        turn that a bounded read cut off) are left out.

        Args:
            history: Oldest first.
            calibration: Tokens that the provider counts per estimated token.
        """
        starts = [i for i, message in enumerate(history) if isinstance(message, UserMessage)]
        if not starts or self.messages == 0 or self.tokens == 0:
            return ()
        chosen, tokens = len(history), 0.0
        for start in reversed(starts):
            if self.tokens is not None:
                tokens += calibration * estimate_tokens(history[start:chosen])
            beyond = (self.messages is not None and len(history) - start > self.messages) or (
                self.tokens is not None and tokens > self.tokens
            )
            if beyond and chosen < len(history):
                break
            chosen = start
        return history[chosen:]


DEFAULT_WINDOW: Final = Window(tokens=32_000)
"""Enough for most conversations. More history makes each call slower and costs more."""


def as_window(value: int | Window | None) -> Window:
    """Convert `Agent(window=...)`: a number counts messages, None means as much as the model
    accepts."""
    if isinstance(value, Window):
        return value
    return Window(messages=value)


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Estimate how many tokens the messages cost."""
    size = 0
    for message in messages:
        size += len(message.content.encode()) + 2 * BYTES_PER_TOKEN
        if isinstance(message, AssistantMessage):
            size += sum(len(str(call.arguments)) + len(call.name) for call in message.tool_calls)
    return size // BYTES_PER_TOKEN
