"""Compaction: a summary of what no longer fits the window. The transcript stays whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from agentapi.conversation.messages import AssistantMessage, Message, ToolMessage, UserMessage
from agentapi.errors import InvalidAgent, InvalidMessage
from agentapi.ids import MAX_CONVERSATION_ID

COMPACT: Final = "agentapi.compact"
"""The agent name of turns that summarise; see `agentapi.turns.kinds`."""

BESIDE: Final = f"/{COMPACT}"
"""Suffix of the conversation in which a summarising turn runs. No agent may have this name, so no
other turn runs there."""

MOST_AT_ONCE: Final = 200
"""Maximum messages in one model call; a long conversation takes several calls."""

LONGEST_PART: Final = 4000
"""Characters of each message that the model reads."""

PROMPT: Final = (
    "Summarise the conversation below for the assistant who will go on with it and see only your "
    "summary of this part. Keep facts, names, numbers, decisions, promises and open questions. "
    "Leave out pleasantries. Write plain text, no more than 300 words. Do not answer anything "
    "that is asked in it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """When and how an agent's conversations are summarised.

    Once more than `keep` + `after` messages are not in the summary, all but the newest `keep` are
    summarised, in whole turns. The window should hold that many messages.

    Attributes:
        keep: Messages that are never summarised, at least 1.
        after: How many further messages may gather first, at least 1.
        prompt: Instructions for the agent's own model.
    """

    keep: int = 20
    after: int = 20
    prompt: str = PROMPT

    def __post_init__(self) -> None:
        if self.keep < 1 or self.after < 1:
            raise InvalidAgent(
                f"compact: keep is {self.keep} and after is {self.after}, expected 1 or more"
            )

    def due(self, total: int, covered: int) -> bool:
        """Whether a summary is due.

        Args:
            total: Messages of the conversation.
            covered: How many of them, from the first, the summary covers.
        """
        return total - covered > self.keep + self.after


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The summary of a conversation's beginning.

    Attributes:
        text: Empty if there is no summary.
        covered: How many messages it covers, from the first.
        total: How many messages the conversation has.
    """

    text: str = ""
    covered: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactionTask:
    """The task of a turn that summarises.

    Attributes:
        conversation_id: The conversation to summarise.
        agent: The agent whose model summarises.
        generation: The history to summarise; a reset begins another.
    """

    conversation_id: str
    agent: str
    generation: int

    def to_message(self) -> str:
        """Encode the task as the turn's message."""
        return orjson.dumps(
            {
                "v": 1,
                "conversation": self.conversation_id,
                "agent": self.agent,
                "generation": self.generation,
            }
        ).decode()

    @classmethod
    def of_turn(cls, conversation_id: str, message: str) -> CompactionTask:
        """Read the task of a turn.

        Args:
            conversation_id: The conversation in which the turn runs. It decides what may be
                summarised; a message that disagrees is refused.
            message: The turn's message.

        Raises:
            InvalidMessage: `to_message` did not write this message for this conversation.
        """
        try:
            data = orjson.loads(message)
            task = cls(
                conversation_id=str(data["conversation"]),
                agent=str(data["agent"]),
                generation=int(data["generation"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidMessage("the message is not a valid compaction task") from error
        if conversation_beside(task.conversation_id) != conversation_id:
            raise InvalidMessage("the turn does not run beside the conversation that it names")
        return task


def conversation_beside(conversation_id: str) -> str:
    """The conversation in which the turns that summarise another conversation run."""
    own = f"{conversation_id}{BESIDE}"
    if len(own) <= MAX_CONVERSATION_ID:
        return own
    return f"{COMPACT}:{hashlib.sha256(conversation_id.encode()).hexdigest()}"


def whole_turns(messages: Sequence[Message], most: int) -> int:
    """How many of the first `most` messages are whole turns; `messages` has at least one more."""
    for count in range(min(most, len(messages) - 1), 0, -1):
        if isinstance(messages[count], UserMessage):
            return count
    return 0


def transcript(summary: str, messages: Sequence[Message]) -> str:
    """The text that the model summarises."""
    lines = [f"Summary of what came before:\n{summary}\n"] if summary else []
    lines += [_line(message) for message in messages]
    return "\n".join(lines)


def _line(message: Message) -> str:
    text = message.content[:LONGEST_PART]
    match message:
        case UserMessage():
            return f"user: {text}"
        case AssistantMessage():
            names = ", ".join(call.name for call in message.tool_calls)
            return f"assistant: {text}" + (f" [calls {names}]" if names else "")
        case ToolMessage():
            return f"{message.name}: {text}"


def with_summary(system_prompt: str, summary: str) -> str:
    """The system prompt with the summary of what the model does not see."""
    if not summary:
        return system_prompt
    note = f"What was said earlier in this conversation, in short:\n{summary}"
    return f"{system_prompt}\n\n{note}" if system_prompt else note
