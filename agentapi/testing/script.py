"""A provider that plays a script: exact replies, tool calls, faults and delays."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.providers import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
    providers,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delayed:
    """An act that takes a while before it begins."""

    seconds: float
    act: ModelResponse | Exception


Act: TypeAlias = ModelResponse | Exception | Delayed
"""What one model call does: answer, raise, or either of them later."""


class ScriptEnded(AssertionError):
    """The agent called the model once more than the script foresaw."""


class ScriptedProvider:
    """Plays its acts in order, one a model call, and remembers what it was asked.

    Attributes:
        acts: Those that have not been played.
        requests: What the agent sent, call by call.
    """

    default_model = "script-1"
    takes_attachments = True

    def __init__(self, *acts: Act, name: str = "scripted") -> None:
        """Make one.

        Args:
            acts: From `says`, `calls`, `after`, or any exception to raise.
            name: The provider that it stands for.
        """
        self.name = name
        self.acts = deque(acts)
        self.requests: list[ModelRequest] = []

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`.

        Raises:
            ScriptEnded: The script is at its end.
        """
        act = await self._next(request)
        if isinstance(act, Exception):
            raise act
        return act

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`: word by word; a fault comes after a first piece of text."""
        act = await self._next(request)
        if isinstance(act, Exception):
            yield TextDelta(text="He")
            raise act
        for piece in re.findall(r"\S+\s*|\s+", act.message.content):
            yield TextDelta(text=piece)
        yield act

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _next(self, request: ModelRequest) -> ModelResponse | Exception:
        self.requests.append(request)
        if not self.acts:
            raise ScriptEnded(
                f"the script of provider {self.name!r} is at its end: model call "
                f"{len(self.requests)} was not foreseen; add what it should answer"
            )
        act = self.acts.popleft()
        if isinstance(act, Delayed):
            await asyncio.sleep(act.seconds)
            return act.act
        return act


def says(text: str, *, input_tokens: int = 10, output_tokens: int = 2) -> ModelResponse:
    """The model replies with a text."""
    return ModelResponse(
        message=AssistantMessage(content=text),
        usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        finish=FinishReason.STOP,
    )


def calls(*wanted: ToolCall, text: str = "") -> ModelResponse:
    """The model calls tools, side by side; see `call`."""
    return ModelResponse(
        message=AssistantMessage(content=text, tool_calls=wanted),
        usage=Usage(input_tokens=10, output_tokens=5),
        finish=FinishReason.TOOL_CALLS,
    )


def call(tool: str, identifier: str = "c1", /, **arguments: Any) -> ToolCall:
    """One tool call; calls of one response need different identifiers."""
    return ToolCall(id=identifier, name=tool, arguments=arguments)


def after(seconds: float, act: ModelResponse | Exception) -> Delayed:
    """The same act, later."""
    return Delayed(seconds=seconds, act=act)


@contextmanager
def scripted(*acts: Act, provider: str = "openai") -> Iterator[ScriptedProvider]:
    """Let a script stand for a provider, for every agent of this process that names it.

    Args:
        acts: What each model call does, in order.
        provider: The provider it stands for.

    Yields:
        The script, for looking at its `requests`.
    """
    played = ScriptedProvider(*acts, name=provider)
    with providers.replaced(provider, lambda: played):
        yield played
