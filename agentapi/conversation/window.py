"""How much of a history a model call gets: whole turns, never a result without its call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.errors import InvalidAgent

BYTES_PER_TOKEN: Final = 4
"""A usual estimate for English text and JSON with today's tokenizers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A bound on the history of a model call, besides the turn's own messages.

    The newest turns that fit are taken whole. The newest turn of the history is always
    taken, even when it alone is larger.

    Attributes:
        messages: At most so many messages, at least 0; None for no bound.
        tokens: At most so many estimated tokens, at least 0; None for no bound.
    """

    messages: int | None = 50
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("messages", self.messages), ("tokens", self.tokens)):
            if value is not None and value < 0:
                raise InvalidAgent(f"window: {name} is {value}, expected 0 or more, or None")

    def select(self, history: Sequence[Message], calibration: float = 1.0) -> Sequence[Message]:
        """The newest turns of `history` that fit, oldest first.

        A turn begins with a user message. Messages before the first user message (the rest
        of a turn that a bounded read cut) are left out.

        Args:
            history: Oldest first.
            calibration: Tokens that the provider counts for one that is estimated.
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


def as_window(value: int | Window | None) -> Window:
    """What `Agent(window=...)` means: a number counts messages, None is the whole history."""
    if isinstance(value, Window):
        return value
    return Window(messages=value)


def estimate_tokens(messages: Sequence[Message]) -> int:
    """A rough count of the tokens that the messages cost."""
    size = 0
    for message in messages:
        size += len(message.content.encode()) + 2 * BYTES_PER_TOKEN
        if isinstance(message, AssistantMessage):
            size += sum(len(str(call.arguments)) + len(call.name) for call in message.tool_calls)
    return size // BYTES_PER_TOKEN
