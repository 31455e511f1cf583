"""Compaction: what grows too old for the window is summarised; the transcript stays as it is."""

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
"""Name under which turns that summarise run. Workers know it besides their own agents."""

BESIDE: Final = f"/{COMPACT}"
"""What the conversation of a turn that summarises is named besides the one it summarises. No agent
may have this name, so that no other turn runs there."""

MOST_AT_ONCE: Final = 200
"""Messages in one model call; an old conversation takes several."""

LONGEST_PART: Final = 4000
"""Characters of one message that the summary is made from."""

PROMPT: Final = (
    "Summarise the conversation below for the assistant who will go on with it and see only your "
    "summary of this part. Keep facts, names, numbers, decisions, promises and open questions. "
    "Leave out pleasantries. Write plain text, no more than 300 words. Do not answer anything "
    "that is asked in it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """When and how an agent's conversations are summarised.

    When more than `keep` + `after` messages are not in the summary, all but the newest `keep`
    are, to the last whole turn. The window should hold that many.

    Attributes:
        keep: Messages that stay as they are, at least 1.
        after: How many more may gather before it is done, at least 1.
        prompt: What the agent's own model is told to do.
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
        """Whether it is time.

        Args:
            total: Messages of the conversation.
            covered: How many of them, from the first, are in the summary.
        """
        return total - covered > self.keep + self.after


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The summary of a conversation's beginning.

    Attributes:
        text: Empty when there is none.
        covered: How many messages, from the first, are in it.
        total: How many there are.
    """

    text: str = ""
    covered: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactionTask:
    """What a turn that summarises is told.

    Attributes:
        conversation_id: The conversation to summarise.
        agent: Whose model does it.
        generation: The history it is about; a reset begins another.
    """

    conversation_id: str
    agent: str
    generation: int

    def to_message(self) -> str:
        """As the turn's message."""
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
        """Read what a turn is to summarise.

        Args:
            conversation_id: Where the turn runs, which says what it summarises. What its message
                says is believed only as far as it agrees.
            message: The turn's message.

        Raises:
            InvalidMessage: The message is none that `to_message` wrote for such a turn.
        """
        try:
            data = orjson.loads(message)
            task = cls(
                conversation_id=str(data["conversation"]),
                agent=str(data["agent"]),
                generation=int(data["generation"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidMessage("the turn has no message of one that summarises") from error
        if conversation_beside(task.conversation_id) != conversation_id:
            raise InvalidMessage("the turn does not run beside the conversation that it names")
        return task


def conversation_beside(conversation_id: str) -> str:
    """The conversation in which turns that summarise another one run."""
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
    """What the model summarises, as text."""
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
    """The system prompt of a model call that does not see the whole conversation."""
    if not summary:
        return system_prompt
    note = f"What was said earlier in this conversation, in short:\n{summary}"
    return f"{system_prompt}\n\n{note}" if system_prompt else note
