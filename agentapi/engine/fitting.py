"""Fits requests to what models accept, and learns the limit if the table of models is wrong.

A request that is too long loses its oldest turns, then the ends of its longest tool results. A
conversation remembers the learned limit, so only one of its calls fails.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.messages import Message, ToolMessage, UserMessage
from agentapi.conversation.window import BYTES_PER_TOKEN, Window, estimate_tokens
from agentapi.errors import ContextTooLong
from agentapi.logs import line
from agentapi.providers import options_for
from agentapi.providers.base import ModelRequest
from agentapi.providers.estimate import calibrated, estimate_request, output_bound, reply_bound
from agentapi.providers.models import size_of
from agentapi.turns.model_size import ModelSize

log = logging.getLogger("agentapi.provider")

MARGIN: Final = 0.95
"""Share of a known context size that is used: token counts are estimates."""

ATTACHED: Final = 1_500
"""Estimated tokens of an image or a file. Providers count between a hundred and several
thousand."""

SHORTEST_RESULT: Final = 400
"""Minimum characters that are kept of each tool result."""

_NOTE: Final = 90
"""Length of the note at the end of a shortened tool result, in characters."""


@dataclass(kw_only=True, slots=True)
class Contexts:
    """What the models of a turn accept, in tokens.

    Attributes:
        sizes: The user's table of models.
        calibration: Tokens that the provider counts for one estimated token.
        learned: What the conversation learned before, by ``provider:model``.
        news: What it learned in this turn.
    """

    sizes: Mapping[str, ModelSize] = field(default_factory=dict)
    calibration: float = 1.0
    learned: Mapping[str, int] = field(default_factory=dict)
    news: dict[str, int] = field(default_factory=dict)

    def fitting(self, provider: str, request: ModelRequest) -> Fitting:
        """Fit the request of one model call to what the model is known to accept."""
        name = f"{provider}:{request.model}"
        known = self.news.get(name) or self.learned.get(name)
        room = size_of(provider, request.model, self.sizes).room(reply_bound(request)) * MARGIN
        room = room if known is None else min(room, known)
        return Fitting(contexts=self, name=name, wanted=request, room=room)


class Fitting:
    """A request to one model, shortened until the model accepts it.

    Attributes:
        request: The request to send next.
        estimate: Estimated tokens of `request`, without calibration.
    """

    def __init__(self, *, contexts: Contexts, name: str, wanted: ModelRequest, room: float) -> None:
        """Fit a request.

        Args:
            contexts: Learns how long a request may be.
            name: The model, as ``provider:model``.
            wanted: The whole request.
            room: Maximum length, in the provider's tokens.
        """
        self._contexts = contexts
        self._name = name
        self._wanted = wanted
        self._room = room
        self._failures = 0
        self._of_model = True
        self.request, self.estimate = fit(wanted, room / contexts.calibration)

    def shorten(self, error: ContextTooLong) -> bool:
        """Shorten the request; returns False if nothing more can be left out.

        Args:
            error: What the provider said about it.
        """
        before, calibration = self.estimate, self._contexts.calibration
        size = before * calibration
        self._room = _room(size, error)
        if self._failures:
            # Its counts did not help, so they cannot be trusted.
            self._room = min(self._room, size / 2)
        self._failures += 1
        # With images and files our own count is too inaccurate to be remembered.
        self._of_model = self._of_model and error.of_model and not _attached(self.request.messages)
        self.request, self.estimate = fit(self._wanted, self._room / calibration)
        if self.estimate >= before:
            return False
        log.info(line("context.shortened", model=self._name, tokens=round(self._room)))
        return True

    def answered(self, counted: int) -> None:
        """Remember how long a request may be, if this one had to be shortened.

        Args:
            counted: The provider's count of its tokens; 0 without a count.
        """
        if not self._failures or not self._of_model:
            return
        contexts = self._contexts
        # At least as long as the answered request.
        room = max(self._room / contexts.calibration, self.estimate)
        contexts.calibration = calibrated(counted, self.estimate) or contexts.calibration
        contexts.news[self._name] = round(room * contexts.calibration)


def window_of(
    agent: AgentDefinition, sizes: Mapping[str, ModelSize], learned: Mapping[str, int]
) -> Window:
    """The agent's window, limited to what its models' contexts allow.

    Args:
        agent: The agent.
        sizes: The user's table of models.
        learned: What the conversation has learned, by ``provider:model``.
    """
    rooms = [
        size_of(each.provider, each.model, sizes).room(
            output_bound(options_for(each, agent.options, agent.choices))
        )
        for each in agent.choices
        # Only a provider knows its default model.
        if each.model is not None
    ]
    providers = {each.provider for each in agent.choices}
    rooms += [room for name, room in learned.items() if name.partition(":")[0] in providers]
    rooms += [] if agent.window.tokens is None else [agent.window.tokens]
    return Window(messages=agent.window.messages, tokens=min(rooms, default=None))


def _room(size: float, error: ContextTooLong) -> float:
    """Maximum length of the next request, by our own count.

    Args:
        size: Length of the request that was too long, by our count.
        error: The error, perhaps with the provider's own count.
    """
    room = size / 2
    if error.limit and error.counted and error.limit < error.counted:
        room = size * error.limit / error.counted * MARGIN
    elif error.limit and error.limit * MARGIN < size:
        room = error.limit * MARGIN
    return min(room, size * MARGIN)


def _estimate(request: ModelRequest) -> int:
    return estimate_request(request.system_prompt, request.messages, request.tools) + _attached(
        request.messages
    )


def _attached(messages: Sequence[Message]) -> int:
    """Estimated tokens of images and files."""
    return ATTACHED * sum(len(m.attachments) for m in messages if isinstance(m, UserMessage))


def fit(request: ModelRequest, room: float) -> tuple[ModelRequest, int]:
    """Shorten the request to fit: leave out the oldest turns first, then the ends of tool results.

    Args:
        request: The request; its first `history` messages belong to earlier turns.
        room: Estimated tokens for the whole request.

    Returns:
        The request, and its estimated tokens.
    """
    estimate = _estimate(request)
    excess = estimate - room
    if excess <= 0:
        return request, estimate
    messages, first = request.messages, request.history
    starts = [i for i in range(1, first) if isinstance(messages[i], UserMessage)]
    begin = 0
    for start in [*starts, first]:
        # Whole turns: a result without its call would be refused (promise 9).
        left_out = messages[begin:start]
        excess -= estimate_tokens(left_out) + _attached(left_out)
        begin = start
        if excess <= 0:
            break
    kept = messages[begin:]
    if excess > 0:
        kept = _with_shorter_results(kept, excess)
    shorter = replace(request, messages=kept, history=first - begin)
    return shorter, _estimate(shorter)


def _with_shorter_results(messages: Sequence[Message], excess: float) -> Sequence[Message]:
    """Cut the longest tool results to a common length, by halves."""
    sizes = [len(m.content) for m in messages if isinstance(m, ToolMessage)]
    longest, needed = max(sizes, default=0), excess * BYTES_PER_TOKEN
    while longest > SHORTEST_RESULT and needed > 0:
        longest = max(longest // 2, SHORTEST_RESULT)
        spared = sum(max(size - longest - _NOTE, 0) for size in sizes)
        needed = excess * BYTES_PER_TOKEN - spared
    return [_shorter(message, longest) for message in messages]


def _shorter(message: Message, longest: int) -> Message:
    if not isinstance(message, ToolMessage) or len(message.content) <= longest + _NOTE:
        return message
    left_out = len(message.content) - longest
    note = f"\n[cut off: the other {left_out} characters do not fit the model's context]"
    return replace(message, content=message.content[:longest] + note)
