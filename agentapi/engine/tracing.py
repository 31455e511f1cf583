"""Spans of model calls and tool calls, and of turns in the caller's own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import orjson

from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentapi.errors import AgentAPIError
from agentapi.logs import bound_fields
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.tools.context import ToolContext
from agentapi.tools.delegation import Delegation
from agentapi.tracing import NO_SPAN, Attributes, Kind, NewSpan, Span, traces
from agentapi.tracing import names as n
from agentapi.turns.request_options import NO_SAMPLING

T = TypeVar("T")

_PROVIDERS: Final = {"gemini": "gcp.gemini"}
"""Provider names of the semantic conventions, where ours differ."""

CANCELLED: Final = "cancelled"
INTERNAL: Final = "internal"


class _Traced:
    """A context manager around a piece of work. It ends the work's span."""

    __slots__ = ("_entered", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._span.fail(_code(error))
        self._span.end()


class ChatSpan(_Traced):
    """One call of a model.

    It is not the current span in the body of the context manager: that is an asynchronous
    generator, which shares its context with its caller. It is the current span while `around`
    waits.
    """

    __slots__ = ("_began", "_content", "_shown")

    def __init__(self, provider: str, request: ModelRequest) -> None:
        made = traces()
        self._content, self._shown, self._began = made.content, False, 0.0
        if not made.on:
            super().__init__(NO_SPAN)
            return
        self._began = time.perf_counter()
        super().__init__(
            made.start(
                NewSpan(
                    name=f"{n.CHAT} {request.model}",
                    kind=Kind.CLIENT,
                    attributes=_asked(provider, request),
                )
            )
        )
        if self._content and self._span.on:
            self._span.set(_said(request))

    def __enter__(self) -> Self:
        return self

    def around(self, parts: AsyncIterator[T]) -> AsyncIterator[T]:
        """Pass on the parts. While the provider works on one, this is the current span."""
        return _around(self._span, parts) if self._span.on else parts

    def shows(self) -> None:
        """Record that text has arrived."""
        if not self._shown and self._span.on:
            self._shown = True
            self._span.set({n.FIRST_CHUNK: time.perf_counter() - self._began})

    def answered(self, response: ModelResponse) -> None:
        """Record that the response is complete."""
        if not self._span.on:
            return
        usage = response.usage
        attributes: dict[str, Any] = {
            n.FINISH: [response.finish.value],
            n.INPUT_TOKENS: usage.input_tokens,
            n.OUTPUT_TOKENS: usage.output_tokens,
        }
        if usage.cached_tokens:
            attributes[n.CACHED_TOKENS] = usage.cached_tokens
        if self._content:
            answer = {**_message(response.message), "finish_reason": response.finish.value}
            attributes[n.OUTPUT] = _json([answer])
        self._span.set(attributes)


class ToolSpan(_Traced):
    """One call of an existing tool. Names that a model made up get no span."""

    __slots__ = ("_content", "_current")

    def __init__(self, tool: str, call: ToolCall) -> None:
        made = traces()
        self._content = made.content
        if not made.on:
            super().__init__(NO_SPAN)
        else:
            attributes = _with_conversation(
                {
                    n.OPERATION: n.EXECUTE_TOOL,
                    n.TOOL: tool,
                    n.TOOL_TYPE: "function",
                    n.CALL: call.id,
                }
            )
            super().__init__(
                made.start(NewSpan(name=f"{n.EXECUTE_TOOL} {tool}", attributes=attributes))
            )
            if self._content and self._span.on:
                self._span.set({n.ARGUMENTS: _json(call.arguments)})
        self._current: AbstractContextManager[object] = self._span.current()

    def __enter__(self) -> Self:
        # Each call runs in its own task, so other calls do not see this.
        self._current.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._current.__exit__(None, None, None)
        super().__exit__(kind, error, traceback)

    def returned(self, result: str | Delegation) -> None:
        """Record that the tool has returned."""
        if not self._span.on:
            return
        if isinstance(result, Delegation):
            self._span.set({n.DELEGATED: len(result.turns)})
        elif self._content:
            self._span.set({n.RESULT: result})


@contextmanager
def agent_span(agent: str, context: ToolContext) -> Iterator[Span]:
    """The span of a turn in the caller's own process."""
    made = traces()
    if not made.on:
        yield NO_SPAN
        return
    attributes = {
        n.OPERATION: n.INVOKE_AGENT,
        n.AGENT: agent,
        n.CONVERSATION: context.conversation_id,
        n.SESSION: context.conversation_id,
        n.TURN: context.turn_id,
    }
    span = made.start(NewSpan(name=f"{n.INVOKE_AGENT} {agent}", attributes=attributes))
    try:
        with span.current():
            yield span
    except BaseException as error:
        span.fail(_code(error))
        raise
    finally:
        span.end()


def _code(error: BaseException) -> str:
    """The code of a failure, without the error's text, which may quote users."""
    if isinstance(error, AgentAPIError):
        return error.code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    # The error's class: its name is code, not users' text.
    return type(error).__qualname__


async def _around(span: Span, parts: AsyncIterator[T]) -> AsyncIterator[T]:
    while True:
        try:
            with span.current():
                part = await anext(parts)
        except StopAsyncIteration:
            return
        yield part


def _with_conversation(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes with the conversation added. The turn and its attempt are in the enclosing
    span."""
    found = bound_fields().get("conversation_id")
    if found is not None:
        attributes[n.CONVERSATION] = found
    return attributes


def _asked(provider: str, request: ModelRequest) -> Attributes:
    sampling = request.sampling
    attributes: dict[str, Any] = {
        n.OPERATION: n.CHAT,
        n.PROVIDER: _PROVIDERS.get(provider, provider),
        n.MODEL: request.model,
    }
    if request.output is not None:
        attributes[n.OUTPUT_TYPE] = "json"
    if sampling is not NO_SAMPLING:
        wanted = {
            n.MAX_TOKENS: sampling.max_output_tokens,
            n.TEMPERATURE: sampling.temperature,
            n.TOP_P: sampling.top_p,
        }
        attributes |= {name: value for name, value in wanted.items() if value is not None}
    return _with_conversation(attributes)


def _said(request: ModelRequest) -> Attributes:
    said = {n.INPUT: _json(list(map(_message, request.messages)))}
    if request.system_prompt:
        said[n.SYSTEM] = _json([{"type": "text", "content": request.system_prompt}])
    return said


def _message(message: Message) -> dict[str, Any]:
    """A message in the form of the conventions. Images and files are left out."""
    match message:
        case UserMessage():
            return {"role": "user", "parts": list(_text(message.content))}
        case AssistantMessage():
            calls = [
                {
                    "type": "tool_call",
                    "id": call.id,
                    "name": call.name,
                    "arguments": dict(call.arguments),
                }
                for call in message.tool_calls
            ]
            return {"role": "assistant", "parts": [*_text(message.content), *calls]}
        case ToolMessage():
            part = {
                "type": "tool_call_response",
                "id": message.call_id,
                "response": message.content,
            }
            return {"role": "tool", "parts": [part]}


def _text(content: str) -> Iterable[Mapping[str, str]]:
    if content:
        yield {"type": "text", "content": content}


def _json(value: object) -> str:
    # A tool's arguments may be any JSON.
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
