"""A provider that plays a script, for the loop's tests."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TypeAlias

from agentapi.messages import AssistantMessage, ToolCall, Usage
from agentapi.providers import FinishReason, ModelRequest, ModelResponse, StreamPart, TextDelta

Act: TypeAlias = ModelResponse | Exception


class Scripted:
    """Answers with what it was given, in order."""

    name = "scripted"
    default_model = "script-1"

    def __init__(self, *acts: Act) -> None:
        self.acts = deque(acts)
        self.requests: list[ModelRequest] = []

    async def complete(self, request: ModelRequest) -> ModelResponse:
        self.requests.append(request)
        act = self.acts.popleft()
        if isinstance(act, Exception):
            raise act
        return act

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """A failure comes after the first piece of text was shown."""
        self.requests.append(request)
        act = self.acts.popleft()
        yield TextDelta(text="He")
        if isinstance(act, Exception):
            raise act
        yield TextDelta(text=act.message.content[2:])
        yield act

    async def aclose(self) -> None:
        pass


def says(text: str) -> ModelResponse:
    return ModelResponse(
        message=AssistantMessage(content=text),
        usage=Usage(input_tokens=10, output_tokens=2),
        finish=FinishReason.STOP,
    )


def calls(*wanted: ToolCall) -> ModelResponse:
    return ModelResponse(
        message=AssistantMessage(content="", tool_calls=wanted),
        usage=Usage(input_tokens=10, output_tokens=5),
        finish=FinishReason.TOOL_CALLS,
    )


def call(tool: str, identifier: str = "c1", /, **arguments: object) -> ToolCall:
    return ToolCall(id=identifier, name=tool, arguments=arguments)
