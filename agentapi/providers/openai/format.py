"""Converts the provider-neutral message format to Chat Completions and back."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from agentapi.conversation.attachments import describe, taken_by
from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentapi.decoding.plain import clean_text
from agentapi.providers.base import FinishReason, ModelRequest, OutputSpec, ToolSpec, ToolUse
from agentapi.providers.openai.strict_schema import strict
from agentapi.turns.request_options import Sampling

_LONGEST_ID: Final = 40
_LONGEST_NAME: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_FINISH: Final = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def request_body(request: ModelRequest) -> dict[str, Any]:
    """Build the body of a chat completion request."""
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request)}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body |= _tool_use(request.tool_use)
    if (output := request.output) is not None and output.free:
        body["response_format"] = {"type": "json_object"}
    elif output is not None:
        strict_schema = _strict_schema(output)
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": output.name,
                "schema": dict(strict_schema or output.schema),
                "strict": strict_schema is not None,
            },
        }
    # Options come last, so that users can override anything, including fields that this release
    # does not know.
    return {**body, **_with_sampling(request.options, request.sampling)}


def _with_sampling(options: Mapping[str, Any], sampling: Sampling) -> Mapping[str, Any]:
    """The agent's options combined with the request's, within the agent's own limit."""
    asked = sampling.given()
    if not asked:
        return options
    if (most := asked.pop("max_output_tokens", None)) is not None:
        # The older of the two names is deprecated, but some servers know only that one.
        name = "max_tokens" if "max_tokens" in options else "max_completion_tokens"
        own = options.get(name)
        asked[name] = min(most, own) if isinstance(own, int) else most
    return {**options, **asked}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    # Sent only if needed: some servers do not know it.
    return {
        "type": "function",
        "function": {**function, "strict": True} if tool.strict else function,
    }


def _tool_use(use: ToolUse | None) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if use is not None and use.name is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": use.name}}
    elif use is not None and use.required:
        body["tool_choice"] = "required"
    if use is not None and not use.parallel:
        body["parallel_tool_calls"] = False
    return body


@lru_cache(maxsize=256)
def _strict_schema(output: OutputSpec) -> Mapping[str, Any] | None:
    """The schema in strict mode, converted once per agent."""
    return strict(output.schema)


def _messages(request: ModelRequest) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": request.system_prompt}] if request.system_prompt else []
    taken = taken_by("Chat Completions", _takes, request.messages)
    return [*system, *(_message(message, request.blobs) for message in taken)]


def _message(message: Message, blobs: Mapping[str, bytes]) -> dict[str, Any]:
    match message:
        case UserMessage(attachments=()):
            return {"role": "user", "content": message.content}
        case UserMessage():
            text = {"type": "text", "text": message.content}
            parts = [_part(attachment, blobs) for attachment in message.attachments]
            return {"role": "user", "content": [text, *parts]}
        case ToolMessage():
            return {
                "role": "tool",
                "tool_call_id": call_id(message.call_id),
                "content": message.content,
            }
        case AssistantMessage():
            data: dict[str, Any] = {"role": "assistant", "content": message.content}
            if message.tool_calls:
                data["content"] = message.content or None
                data["tool_calls"] = _calls(message.tool_calls)
            return data


def _takes(attachment: Attachment) -> bool:
    """Whether Chat Completions accept the attachment: files only as bytes."""
    return attachment.kind is AttachmentKind.IMAGE or attachment.url is None


def _part(attachment: Attachment, blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """Convert an attachment to a content part."""
    url = attachment.url or data_url(attachment, blobs)
    if url is None:
        return {"type": "text", "text": f"[{describe(attachment)} is no longer kept]"}
    if attachment.kind is AttachmentKind.IMAGE:
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": attachment.name or "file", "file_data": url}}


def data_url(attachment: Attachment, blobs: Mapping[str, bytes]) -> str | None:
    """The bytes of an attachment as a data URL; None if they are no longer stored."""
    data = blobs.get(attachment.blob or "")
    if data is None:
        return None
    return f"data:{attachment.media_type};base64,{base64.b64encode(data).decode()}"


def _calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": call_id(call.id),
            "type": "function",
            "function": {
                "name": _function_name(call.name),
                "arguments": call.malformed
                if call.malformed is not None
                else orjson.dumps(dict(call.arguments)).decode(),
            },
        }
        for call in calls
    ]


def _function_name(name: str) -> str:
    """Make a name valid for this API: a model may have called a tool that does not exist."""
    if _NAME.fullmatch(name):
        return name
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] or "_"


def call_id(original: str) -> str:
    """Shorten an id to the API's 40 characters, in the same way for a call and its result.

    Histories from other providers may have ids of any length.
    """
    if 0 < len(original) <= _LONGEST_ID:
        return original
    return "call_" + hashlib.sha256(original.encode()).hexdigest()[:32]


def tool_call(identifier: str, name: str, arguments: str, *, cut: bool = False) -> ToolCall:
    """Build a tool call, with its arguments parsed if they are a JSON object.

    Args:
        identifier: Its id.
        name: The tool.
        arguments: JSON; empty for none.
        cut: Whether the response was cut off, so that empty arguments may mean missing ones.
    """
    arguments = clean_text(arguments)
    try:
        value = orjson.loads(arguments or ("" if cut else "{}"))
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return ToolCall(id=identifier, name=name, arguments=value)
    return ToolCall(id=identifier, name=name, arguments={}, malformed=arguments)


def finish_reason(reason: object) -> FinishReason:
    """Convert a finish reason; unknown ones count as a normal stop."""
    return _FINISH.get(reason, FinishReason.STOP) if isinstance(reason, str) else FinishReason.STOP
