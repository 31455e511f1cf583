"""Compaction: a summary of the messages that no longer fit the window. The transcript is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from agentapi.conversation.messages import AssistantMessage, Message, ToolMessage, UserMessage
from agentapi.conversation.window import Window, estimate_tokens
from agentapi.errors import InvalidAgent, InvalidMessage
from agentapi.ids import MAX_CONVERSATION_ID

COMPACT: Final = "agentapi.compact"
"""The agent name of summarising turns; see `agentapi.turns.kinds`."""

BESIDE: Final = f"/{COMPACT}"
"""Suffix of the id of the conversation in which a summarising turn runs. No agent can have this
name, so no other turn runs there."""

MOST_AT_ONCE: Final = 200
"""Maximum messages in one model call. A long conversation takes several calls."""

LONGEST_PART: Final = 4000
"""Maximum characters of each message that the model reads."""

FULL: Final = 0.75
"""Share of the window that may be used before a summary is due: writing it takes a while."""

PROMPT: Final = (
    "Summarise the conversation below for the assistant that will continue it and will see only "
    "your summary of this part. Keep facts, names, numbers, decisions, promises and open "
    "questions. Leave out pleasantries. Write plain text, no more than 300 words. Do not answer "
    "any questions in it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """When and how an agent's conversations are summarised.

    Once more than `keep` + `after` messages are not in the summary, all but the newest `keep` are
    summarised, in whole turns. If the messages fill the window before that, a summary is made
    earlier and fewer are kept. So the model always sees each message or its summary.

    Attributes:
        keep: Number of messages that are not summarised, at least 1; fewer if they fill half of the
            window.
        after: How many further messages may accumulate first, at least 1.
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

    def newest(self, window: Window, messages: Sequence[Message], calibration: float) -> int:
        """How many of the newest messages stay out of the summary: at most half of the window.

        Args:
            window: How much history a model call gets.
            messages: The messages that are not in the summary, oldest first.
            calibration: Tokens that the provider counts for one estimated token.
        """
        keep = self.keep
        if window.messages is not None:
            keep = min(keep, window.messages // 2)
        if window.tokens is not None:
            room = window.tokens / 2 / calibration
            fitting = 0
            for message in reversed(messages[-keep:] if keep else ()):
                room -= estimate_tokens([message])
                if room < 0:
                    break
                fitting += 1
            keep = min(keep, fitting)
        return max(keep, 1)


def is_crowded(window: Window, messages: Sequence[Message], calibration: float) -> bool:
    """Whether messages will soon fall out of the window.

    Args:
        window: How much history a model call gets.
        messages: The messages that are not in the summary.
        calibration: Tokens that the provider counts for one estimated token.
    """
    if window.messages is not None and len(messages) > window.messages:
        return True
    if window.tokens is None:
        return False
    return calibration * estimate_tokens(messages) > FULL * window.tokens


def not_summarised(history: Sequence[Message], summary: Summary) -> Sequence[Message]:
    """The loaded history without the messages that the summary covers."""
    # `covered` counts from the beginning of the conversation, but only its newest messages are
    # loaded.
    first = summary.total - len(history)
    return history[max(0, summary.covered - first) :]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The summary of the beginning of a conversation.

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
        generation: The history to summarise; a reset starts a new one.
        keep: How many of the newest messages to leave out; None for the agent's own number.
    """

    conversation_id: str
    agent: str
    generation: int
    keep: int | None = None

    def to_message(self) -> str:
        """Encode the task as the turn's message."""
        data = {
            "v": 1,
            "conversation": self.conversation_id,
            "agent": self.agent,
            "generation": self.generation,
        }
        if self.keep is not None:
            data["keep"] = self.keep
        return orjson.dumps(data).decode()

    @classmethod
    def of_turn(cls, conversation_id: str, message: str) -> CompactionTask:
        """Read the task of a turn.

        Args:
            conversation_id: The conversation in which the turn runs. It decides what may be
                summarised; a message that contradicts it is refused.
            message: The turn's message.

        Raises:
            InvalidMessage: The message was not written by `to_message` for this conversation.
        """
        try:
            data = orjson.loads(message)
            task = cls(
                conversation_id=str(data["conversation"]),
                agent=str(data["agent"]),
                generation=int(data["generation"]),
                keep=None if data.get("keep") is None else max(int(data["keep"]), 1),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidMessage("the message is not a valid compaction task") from error
        if conversation_beside(task.conversation_id) != conversation_id:
            raise InvalidMessage(
                "the turn's own conversation does not belong to the conversation that it names"
            )
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


def transcript(summary: str, messages: Sequence[Message], longest: int = LONGEST_PART) -> str:
    """The text that the model summarises.

    Args:
        summary: The summary so far.
        messages: The messages after it.
        longest: Maximum characters of each message.
    """
    lines = [f"Summary of what came before:\n{summary}\n"] if summary else []
    lines += [_line(message, longest) for message in messages]
    return "\n".join(lines)


def _line(message: Message, longest: int) -> str:
    text = message.content[:longest]
    match message:
        case UserMessage():
            return f"user: {text}"
        case AssistantMessage():
            names = ", ".join(call.name for call in message.tool_calls)
            return f"assistant: {text}" + (f" [calls {names}]" if names else "")
        case ToolMessage():
            return f"{message.name}: {text}"


def with_summary(system_prompt: str, summary: str) -> str:
    """The system prompt, with the summary of the messages that the model does not see."""
    if not summary:
        return system_prompt
    note = f"What was said earlier in this conversation, in short:\n{summary}"
    return f"{system_prompt}\n\n{note}" if system_prompt else note
