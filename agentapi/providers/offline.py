"""A deterministic provider without network or model, for the demo, tests and benchmarks."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from agentapi.conversation.attachments import describe
from agentapi.conversation.finish import CONTINUE
from agentapi.conversation.messages import (
    AssistantMessage,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentapi.environment import variable
from agentapi.errors import ProviderMisconfigured
from agentapi.providers.base import (
    CallDelta,
    FinishReason,
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
)
from agentapi.providers.errors import refused
from agentapi.providers.estimate import reply_bound

_COMMAND = re.compile(r"^/(?P<name>[A-Za-z_][\w-]*)(?:[ \t]+(?P<arguments>\{.*\}))?[ \t]*$", re.M)
_ASKED = re.compile(
    r"\b(?:use|call)\s+(?P<name>[A-Za-z_][\w-]*)(?:\s+(?:with\s+)?(?P<arguments>\{.*?\}))?", re.I
)
_RECALL = re.compile(r"\bwhat (?:did i say|have i said|was said)\b", re.I)
_INSTRUCTIONS = re.compile(r"\bwhat are your instructions\b", re.I)
_OBJECT = re.compile(r"\{.*\}", re.S)
_BYTES_PER_TOKEN: Final = 4


class OfflineProvider:
    """Derives its answer from the request, so that a conversation always gets the same reply.

    - A line ``/tool {"argument": 1}``, or "use tool" or "call tool with {...}" in the text, calls
      that tool if the agent has it. Several lines make parallel calls.
    - After tool results, the reply repeats them.
    - "What did I say?" is answered from the user's messages in the history.
    - With an `output_type`, the reply is the JSON object in the user's message, or else the
      smallest valid one, with the message as the value of its text fields.
    - If a tool must be called, that tool is called: with the JSON object in the user's message, or
      else with the smallest valid arguments.
    - "What are your instructions?" is answered with the system prompt.
    - Anything else is echoed, with a short description of its images and files.

    A request's stop sequences and token limit (4 characters per token), and ``max_tokens`` in the
    agent's options, cut the reply. With a context, longer requests are refused.
    """

    name = "offline"
    takes_attachments = True
    default_model = "offline-1"

    def __init__(
        self, *, delay: float = 0.0, chunk_delay: float = 0.0, context: int | None = None
    ) -> None:
        """Create a provider.

        Args:
            delay: Seconds before each answer starts, at least 0.
            chunk_delay: Seconds between the pieces of a streamed answer, at least 0.
            context: Maximum tokens of a request, at 4 characters per token; no limit when not
                given.
        """
        self._context = context
        self._delay = delay
        self._chunk_delay = chunk_delay

    @classmethod
    def from_environment(cls) -> OfflineProvider:
        """Use `AGENTAPI_OFFLINE_DELAY`, `_CHUNK_DELAY` and `_CONTEXT`.

        Raises:
            ProviderMisconfigured: One of them is not valid.
        """
        context = variable("AGENTAPI_OFFLINE_CONTEXT")
        if context and not (context.isdecimal() and int(context)):
            raise ProviderMisconfigured(
                f"AGENTAPI_OFFLINE_CONTEXT is {context!r}: expected a number of tokens, at least 1",
                provider="offline",
            )
        return cls(
            context=int(context) if context else None,
            delay=_seconds("AGENTAPI_OFFLINE_DELAY"),
            chunk_delay=_seconds("AGENTAPI_OFFLINE_CHUNK_DELAY"),
        )

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`.

        Raises:
            ContextTooLong: The request does not fit the context.
        """
        if self._delay:
            await asyncio.sleep(self._delay)
        answer = _answer(request)
        asked = answer.usage.input_tokens
        if self._context is not None and asked > self._context:
            raise refused(
                self.name,
                400,
                f"This model's maximum context length is {self._context} tokens. However, your "
                f"messages resulted in {asked} tokens.",
                secret="",
            )
        return answer

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`: word by word."""
        response = await self.complete(request)
        for piece in re.findall(r"\S+\s*|\s+", response.message.content):
            yield TextDelta(text=piece)
            await asyncio.sleep(self._chunk_delay)
        for index, call in enumerate(response.message.tool_calls):
            for piece in re.findall(r".{1,16}", _arguments(call), re.S):
                yield CallDelta(index=index, name=call.name, arguments=piece)
                await asyncio.sleep(self._chunk_delay)
        yield response

    async def aclose(self) -> None:
        """Nothing to close."""


def _seconds(name: str) -> float:
    value = variable(name) or "0"
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    # Comparisons are false for NaN.
    if not 0 <= seconds < math.inf:
        raise ProviderMisconfigured(
            f"{name} is {value!r}: expected seconds, at least 0", provider="offline"
        )
    return seconds


def _answer(request: ModelRequest) -> ModelResponse:
    asked, begun = _begun(request)
    last = asked.messages[-1]
    calls: tuple[ToolCall, ...] = ()
    if isinstance(last, UserMessage):
        calls = _calls(last.content, asked) or _forced(last.content, asked)
    content = "" if calls else _until_stop(_reply(asked), request.sampling.stop)
    content = content.removeprefix(begun)
    finish = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    longest = reply_bound(request)
    if longest is not None and len(content) > longest * _BYTES_PER_TOKEN:
        content, finish = content[: longest * _BYTES_PER_TOKEN], FinishReason.LENGTH
    message = AssistantMessage(content=content, tool_calls=calls)
    return ModelResponse(message=message, usage=_usage(request, message), finish=finish)


def _begun(request: ModelRequest) -> tuple[ModelRequest, str]:
    """The original request, and the part of its reply that already exists."""
    messages = request.messages
    reply = messages[-2] if len(messages) > 1 else None
    if isinstance(reply, AssistantMessage) and messages[-1] == UserMessage(content=CONTINUE):
        return replace(request, messages=messages[:-2]), reply.content
    return request, ""


def _until_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop sequence."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]


def _reply(request: ModelRequest) -> str:
    if request.output is None:
        return _text(request)
    said = next(m.content for m in reversed(request.messages) if isinstance(m, UserMessage))
    if (given := _OBJECT.search(said)) is not None:
        return given[0]
    schema = request.output.schema
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    return orjson.dumps(_smallest(schema, definitions, said)).decode()


def _smallest(schema: Mapping[str, Any], definitions: Mapping[str, Any], text: str) -> Any:
    """The smallest valid value of a schema that pydantic generated."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "default" in schema:
        return schema["default"]
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return _smallest(schema[choices][0], definitions, text)
    match schema.get("type"):
        case "object":
            return {
                name: _smallest(of, definitions, text)
                for name, of in schema.get("properties", {}).items()
            }
        case "array":
            least = schema.get("minItems", 0)
            return [_smallest(schema.get("items", {}), definitions, text) for _ in range(least)]
        case "integer" | "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return text[: schema.get("maxLength")]


def _calls(text: str, request: ModelRequest) -> tuple[ToolCall, ...]:
    names = {tool.name for tool in request.tools}
    found = [match for match in _COMMAND.finditer(text) if match["name"] in names]
    if not found:
        found = [match for match in _ASKED.finditer(text) if match["name"] in names][:1]
    return tuple(
        _call(match["name"], match["arguments"], f"call_{len(request.messages)}_{number}")
        for number, match in enumerate(found)
    )


def _forced(text: str, request: ModelRequest) -> tuple[ToolCall, ...]:
    """The call that the request demands, if it demands one."""
    use = request.tool_use
    if use is None or not use.required:
        return ()
    tool = next((t for t in request.tools if t.name == use.name), request.tools[-1])
    given = _OBJECT.search(text)
    schema = tool.parameters
    arguments = (
        given[0]
        if given is not None
        else orjson.dumps(_smallest(schema, schema.get("$defs", {}), text)).decode()
    )
    return (_call(tool.name, arguments, f"call_{len(request.messages)}_0"),)


def _call(name: str, text: str | None, call_id: str) -> ToolCall:
    try:
        arguments: Any = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return ToolCall(id=call_id, name=name, arguments={}, malformed=text)
    return ToolCall(id=call_id, name=name, arguments=arguments)


def _arguments(call: ToolCall) -> str:
    return call.malformed or orjson.dumps(dict(call.arguments)).decode()


def _text(request: ModelRequest) -> str:
    messages = request.messages
    results: list[str] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, f"{message.name}: {message.content}")
    if results:
        return "\n".join(results)
    said = [message.content for message in messages if isinstance(message, UserMessage)]
    if _RECALL.search(said[-1]):
        earlier = said[:-1]
        things = "thing" if len(earlier) == 1 else "things"
        return f"You said {len(earlier)} {things}: {' | '.join(earlier)}" if earlier else "Nothing."
    if _INSTRUCTIONS.search(said[-1]):
        return request.system_prompt or "None."
    last = [message for message in messages if isinstance(message, UserMessage)][-1]
    seen = "".join(f" [{describe(attachment)}]" for attachment in last.attachments)
    return f"You said: {said[-1]}{seen}"


def _usage(request: ModelRequest, message: AssistantMessage) -> Usage:
    sent = len(request.system_prompt) + sum(len(m.content) for m in request.messages)
    got = len(message.content) + sum(len(str(call.arguments)) for call in message.tool_calls)
    return Usage(
        input_tokens=sent // _BYTES_PER_TOKEN + 1, output_tokens=got // _BYTES_PER_TOKEN + 1
    )
