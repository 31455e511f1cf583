"""The provider-neutral message format of a conversation's history.

Each message is one JSON object with a format version, so that later releases and every provider
can read a history written today. A provider stores the data that it needs back (thought signatures,
its own call ids) in `provider_data` under its own name. No other code reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

import orjson

from agentapi.conversation.finish import COMPLETE, FinishReason, finish_reason_of
from agentapi.decoding.records import (
    UNREADABLE,
    check_version,
    object_in,
    record_of,
    some_text_in,
    text_in,
    unreadable,
)

FORMAT_VERSION: Final = 1

_REMEDY: Final = "delete it from the conversation, or reset the conversation (Orchestrator.reset)"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A tool call that a model asks for.

    Attributes:
        id: Unique within its conversation; the result refers to it.
        name: Name of the tool.
        arguments: The arguments by parameter name.
        malformed: The raw text when the arguments are not a JSON object; `arguments` is then
            empty. None otherwise.
        client: Whether the client runs the call instead of the agent.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    malformed: str | None = None
    client: bool = False


class AttachmentKind(StrEnum):
    """What an attachment is to the model."""

    IMAGE = "image"
    FILE = "file"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """An image or a file of a message: a reference, not the content.

    Attributes:
        url: Where the provider fetches it; None if the bytes are stored.
        blob: Name of the stored bytes (their SHA-256), which are kept beside the history; None
            with a URL.
        size: Number of bytes.
    """

    kind: AttachmentKind
    url: str | None = None
    blob: str | None = None
    size: int = 0
    media_type: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UserMessage:
    """A message of the user, with its images and files."""

    content: str
    attachments: tuple[Attachment, ...] = ()
    turn_id: str | None = None
    role: Literal["user"] = field(default="user", init=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class AssistantMessage:
    """A response of a model: text, tool calls, or both.

    Attributes:
        content: The text; empty when there are only tool calls.
        tool_calls: Calls to make before the model is called again.
        provider_data: Opaque JSON by provider name, sent back verbatim to that provider.
        model: The model that answered, such as ``openai:gpt-5``; None when unknown.
        finish_reason: Why the model stopped. A complete response has `TOOL_CALLS` if it calls
            tools, else `STOP`.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    provider_data: Mapping[str, Any] = field(default_factory=dict)
    turn_id: str | None = None
    model: str | None = None
    finish_reason: FinishReason = FinishReason.STOP
    role: Literal["assistant"] = field(default="assistant", init=False)

    def __post_init__(self) -> None:
        # Derived, so that complete responses need not store it.
        if self.finish_reason in COMPLETE:
            reason = FinishReason.TOOL_CALLS if self.tool_calls else FinishReason.STOP
            object.__setattr__(self, "finish_reason", reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolMessage:
    """The result of a tool call, as the model sees it."""

    call_id: str
    name: str
    content: str
    is_error: bool = False
    turn_id: str | None = None
    role: Literal["tool"] = field(default="tool", init=False)


Message: TypeAlias = UserMessage | AssistantMessage | ToolMessage


def to_dict(message: Message) -> dict[str, Any]:
    """Convert a message to the JSON object in which it is stored."""
    data: dict[str, Any] = {
        "v": FORMAT_VERSION,
        "role": message.role,
        "content": message.content,
    }
    match message:
        case AssistantMessage():
            if message.tool_calls:
                data["tool_calls"] = [_call_to_dict(call) for call in message.tool_calls]
            if message.provider_data:
                data["provider_data"] = dict(message.provider_data)
            if message.model is not None:
                data["model"] = message.model
            if message.finish_reason not in COMPLETE:
                data["finish_reason"] = message.finish_reason.value
        case ToolMessage():
            data["call_id"] = message.call_id
            data["name"] = message.name
            if message.is_error:
                data["is_error"] = True
        case UserMessage():
            if message.attachments:
                data["attachments"] = [attachment_to_dict(a) for a in message.attachments]
    if message.turn_id is not None:
        data["turn_id"] = message.turn_id
    return data


def attachment_to_dict(attachment: Attachment) -> dict[str, Any]:
    """Convert an attachment to its stored form, without unset fields."""
    return {name: value for name, value in asdict(attachment).items() if value}


def attachment_from_dict(data: Mapping[str, Any]) -> Attachment:
    """Read a stored attachment."""
    return record_of(Attachment, {**data, "kind": AttachmentKind(data["kind"])})


def _call_to_dict(call: ToolCall) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": call.id,
        "name": call.name,
        "arguments": dict(call.arguments),
    }
    if call.malformed is not None:
        data["malformed"] = call.malformed
    if call.client:
        data["client"] = True
    return data


def _call_from_dict(data: Mapping[str, Any]) -> ToolCall:
    if not isinstance(data["arguments"], dict):
        raise TypeError("arguments are not a JSON object")
    return ToolCall(
        id=text_in(data, "id"),
        name=text_in(data, "name"),
        arguments=data["arguments"],
        malformed=some_text_in(data, "malformed"),
        client=bool(data.get("client")),
    )


def from_dict(data: Mapping[str, Any]) -> Message:
    """Read a stored message.

    Raises:
        UnreadableRecord: It was written by a newer release, or is not a valid message.
    """
    try:
        return _from_dict(data)
    except UNREADABLE as error:
        raise unreadable("a message", error, remedy=_REMEDY) from error


def _from_dict(data: Mapping[str, Any]) -> Message:
    # A claim reads many messages, so the checks are inline, without a call for each field.
    if (version := data.get("v", FORMAT_VERSION)) != FORMAT_VERSION:
        check_version("a message", version, FORMAT_VERSION)
    role, content, turn_id = data["role"], data["content"], data.get("turn_id")
    if not isinstance(content, str) or not (turn_id is None or isinstance(turn_id, str)):
        raise TypeError("content or turn_id is not text")
    if role == "user":
        if "attachments" not in data:
            return UserMessage(content=content, turn_id=turn_id)
        attachments = tuple(map(attachment_from_dict, data["attachments"]))
        return UserMessage(content=content, attachments=attachments, turn_id=turn_id)
    if role == "assistant":
        return AssistantMessage(
            content=content,
            tool_calls=tuple(map(_call_from_dict, data["tool_calls"]))
            if "tool_calls" in data
            else (),
            provider_data=object_in(data, "provider_data") if "provider_data" in data else {},
            turn_id=turn_id,
            model=some_text_in(data, "model") if "model" in data else None,
            finish_reason=finish_reason_of(data["finish_reason"])
            if "finish_reason" in data
            else FinishReason.STOP,
        )
    if role == "tool":
        return ToolMessage(
            call_id=text_in(data, "call_id"),
            name=text_in(data, "name"),
            content=content,
            is_error=bool(data.get("is_error")),
            turn_id=turn_id,
        )
    raise ValueError("role must be user, assistant or tool")


def dumps(message: Message) -> bytes:
    """Convert a message to JSON bytes."""
    return orjson.dumps(to_dict(message))


def loads(data: bytes | str) -> Message:
    """Read a message from JSON.

    Raises:
        UnreadableRecord: It was written by a newer release, or is not a valid message.
    """
    try:
        return _from_dict(orjson.loads(data))
    except UNREADABLE as error:
        raise unreadable("a message", error, remedy=_REMEDY) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens spent, as counted by the provider.

    Attributes:
        input_tokens: Tokens sent, including cached ones.
        output_tokens: Tokens generated, including reasoning.
        cached_tokens: The part of `input_tokens` that the provider had cached.
        cost: Cost by the price table; 0 for models without a price.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost=self.cost + other.cost,
        )
