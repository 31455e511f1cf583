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
    """An act that starts after a delay."""

    seconds: float
    act: ModelResponse | Exception


Act: TypeAlias = ModelResponse | Exception | Delayed
"""The outcome of one model call: an answer or an error, perhaps after a delay."""


class ScriptEnded(AssertionError):
    """The agent called the model more often than the script expects."""


class ScriptUnused(AssertionError):
    """No agent called the model that the script plays."""


class ScriptedProvider:
    """Plays its acts in order, one per model call, and records the requests.

    Attributes:
        acts: The acts that have not been played yet.
        requests: The agent's requests, one per call.
    """

    default_model = "script-1"
    takes_attachments = True

    def __init__(self, *acts: Act, name: str = "scripted") -> None:
        """Create a script.

        Args:
            acts: Made by `says`, `calls` or `after`; or any exception, to raise it.
            name: Name of the provider that it replaces.
        """
        self.name = name
        self.acts = deque(acts)
        self.requests: list[ModelRequest] = []

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`.

        Raises:
            ScriptEnded: All acts have been played.
        """
        act = await self._next(request)
        if isinstance(act, Exception):
            raise act
        return act

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`: word by word; an exception follows a first piece of text."""
        act = await self._next(request)
        if isinstance(act, Exception):
            yield TextDelta(text="He")
            raise act
        for piece in re.findall(r"\S+\s*|\s+", act.message.content):
            yield TextDelta(text=piece, refusal=act.finish is FinishReason.REFUSAL)
        yield act

    async def aclose(self) -> None:
        """Nothing to close."""

    def check_used(self) -> None:
        """Check that an agent called the model, if the script has acts.

        Raises:
            ScriptUnused: None did.
        """
        if self.acts and not self.requests:
            raise ScriptUnused(
                f"the script was not used: no agent called provider {self.name!r}. Pass the "
                "provider of your agent, such as script(..., provider='offline')"
            )

    async def _next(self, request: ModelRequest) -> ModelResponse | Exception:
        self.requests.append(request)
        if not self.acts:
            raise ScriptEnded(
                f"the script of provider {self.name!r} has no answer left for model call "
                f"{len(self.requests)}: add one"
            )
        act = self.acts.popleft()
        if isinstance(act, Delayed):
            await asyncio.sleep(act.seconds)
            return act.act
        return act


def says(
    text: str,
    *,
    input_tokens: int = 10,
    output_tokens: int = 2,
    finish_reason: FinishReason = FinishReason.STOP,
) -> ModelResponse:
    """An act: the model replies with a text.

    Args:
        text: The reply, or a part of it.
        input_tokens: Tokens that the provider counts for the request.
        output_tokens: Tokens that it counts for the reply.
        finish_reason: Why the model stops, such as ``FinishReason.LENGTH``.
    """
    return ModelResponse(
        message=AssistantMessage(content=text),
        usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        finish=finish_reason,
    )


def calls(*wanted: ToolCall, text: str = "") -> ModelResponse:
    """An act: the model calls tools in parallel; see `call`."""
    return ModelResponse(
        message=AssistantMessage(content=text, tool_calls=wanted),
        usage=Usage(input_tokens=10, output_tokens=5),
        finish=FinishReason.TOOL_CALLS,
    )


def call(tool: str, identifier: str = "c1", /, **arguments: Any) -> ToolCall:
    """One tool call; the calls of one response need different identifiers."""
    return ToolCall(id=identifier, name=tool, arguments=arguments)


def after(seconds: float, act: ModelResponse | Exception) -> Delayed:
    """Delay an act by `seconds`."""
    return Delayed(seconds=seconds, act=act)


@contextmanager
def scripted(*acts: Act, provider: str = "openai") -> Iterator[ScriptedProvider]:
    """Replace a provider by a script, for every agent of this process that uses it.

    Args:
        acts: What each model call does, in order.
        provider: Name of the provider to replace.

    Yields:
        The script, whose `requests` can be inspected.

    Raises:
        ScriptUnused: No agent called the provider, although the script has acts.
    """
    with replacing(*acts, provider=provider) as played:
        yield played
        played.check_used()


@contextmanager
def replacing(*acts: Act, provider: str) -> Iterator[ScriptedProvider]:
    """Like `scripted`, but without the check that the script was used."""
    played = ScriptedProvider(*acts, name=provider)
    with providers.replaced(provider, lambda: played):
        yield played
