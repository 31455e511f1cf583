"""Reads function calls in a request: the calls, their outputs, and decisions about calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from agentapi.conversation.messages import AssistantMessage, Message, ToolCall, ToolMessage
from agentapi.turns.client_tools import NOT_ANSWERED
from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.ids import new_message_key

_LONGEST_ID: Final = 256
_KEPT_ID: Final = 40
"""Maximum characters of an id; providers refuse longer ones."""

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionCall:
    """A function call that the client executes, as the client sends it back.

    Attributes:
        call_id: The id that its output refers to.
        arguments: Its arguments as they were sent, usually a JSON object.
        id: Its id as an item, if it was one.
    """

    call_id: str
    name: str
    arguments: str
    id: str | None = None

    def as_call(self) -> ToolCall:
        """The call in the form of a history."""
        try:
            arguments = orjson.loads(self.arguments or "{}")
        except orjson.JSONDecodeError:
            arguments = None
        whole = isinstance(arguments, dict)
        return ToolCall(
            id=_kept(self.call_id),
            name=self.name,
            arguments=arguments if whole else {},
            malformed=None if whole else self.arguments,
            client=True,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionOutput:
    """The output of a call of a function.

    Attributes:
        id: The id of the call.
    """

    id: str
    text: str
    place: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalDecision:
    """A decision about a call of one of the agent's own tools.

    Attributes:
        id: The id of the request for approval.
    """

    id: str
    approve: bool
    reason: str | None
    place: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionRound:
    """A response that called functions, with the outputs of the calls.

    Attributes:
        text: The response's text.
        calls: The calls.
        outputs: Outputs by call id.
        id: None, because several items became one entry.
    """

    text: str
    calls: Sequence[FunctionCall]
    outputs: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    def messages(self, key: str | None = None) -> Iterator[Message]:
        """The messages for a history. Every call has a result."""
        key = key or new_message_key()
        calls = tuple(call.as_call() for call in self.calls)
        yield AssistantMessage(content=self.text, tool_calls=calls, turn_id=key)
        for given, call in zip(self.calls, calls, strict=True):
            output = self.outputs.get(given.call_id)
            yield ToolMessage(
                call_id=call.id,
                name=call.name,
                content=NOT_ANSWERED.text if output is None else output,
                is_error=output is None,
                turn_id=key,
            )


def _kept(call_id: str) -> str:
    if len(call_id) <= _KEPT_ID:
        return call_id
    return "call_" + hashlib.sha256(call_id.encode()).hexdigest()[:32]


def function_call(fields: Mapping[str, Any], place: str) -> FunctionCall:
    """Read an item of type `function_call`."""
    item_id = fields.get("id")
    return FunctionCall(
        call_id=_id(fields, "call_id", place),
        name=_text(fields, "name", place),
        arguments=_arguments(fields, place),
        id=item_id if isinstance(item_id, str) else None,
    )


def function_output(fields: Mapping[str, Any], place: str) -> FunctionOutput:
    """Read an item of type `function_call_output`."""
    text = output_text(fields.get("output"), f"{place}.output")
    return FunctionOutput(id=_id(fields, "call_id", place), text=text, place=place)


def approval(fields: Mapping[str, Any], place: str) -> ApprovalDecision:
    """Read an item of type `mcp_approval_response`."""
    approve, reason = fields.get("approve"), fields.get("reason")
    if not isinstance(approve, bool):
        raise InvalidRequest(f"{place}.approve is not true or false", param=f"{place}.approve")
    if not isinstance(reason, str | None):
        raise InvalidRequest(f"{place}.reason is not text", param=f"{place}.reason")
    return ApprovalDecision(
        id=_id(fields, "approval_request_id", place),
        approve=approve,
        reason=reason or None,
        place=place,
    )


def chat_calls(calls: object, place: str) -> list[FunctionCall]:
    """Read `tool_calls` of an assistant's message in a chat completion."""
    if not isinstance(calls, list):
        raise InvalidRequest(f"{place}.tool_calls is not a list", param=f"{place}.tool_calls")
    found = []
    for number, call in enumerate(calls):
        where = f"{place}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise UnsupportedParameter(f"{where} is not a call of a function", param=where)
        found.append(
            FunctionCall(
                call_id=_id(call, "id", where),
                name=_text(function, "name", where),
                arguments=_arguments(function, where),
            )
        )
    return found


def chat_output(fields: Mapping[str, Any], place: str) -> FunctionOutput:
    """Read a message with the role `tool` of a chat completion."""
    text = output_text(fields.get("content"), f"{place}.content")
    return FunctionOutput(id=_id(fields, "tool_call_id", place), text=text, place=place)


def output_text(value: object, place: str) -> str:
    """Read the output of a function: text, or a list of texts.

    Raises:
        InvalidRequest: It is neither.
        UnsupportedParameter: It has an image or a file.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise InvalidRequest(f"{place} is neither text nor a list of texts", param=place)
    texts = []
    for number, part in enumerate(value):
        where = f"{place}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS:
            raise UnsupportedParameter(
                f"{where} is a part of type {kind!r}: the output of a function is text",
                param=where,
            )
        texts.append(_text(part, "text", where, empty=True))
    return "\n".join(texts)


def _arguments(fields: Mapping[str, Any], place: str) -> str:
    arguments = fields.get("arguments")
    # Some clients send the object itself.
    if isinstance(arguments, Mapping):
        return orjson.dumps(dict(arguments)).decode()
    return _text(fields, "arguments", place, empty=True)


def _id(fields: Mapping[str, Any], name: str, place: str) -> str:
    value = _text(fields, name, place)
    if len(value) > _LONGEST_ID:
        raise InvalidRequest(
            f"{place}.{name} has more than {_LONGEST_ID} characters", param=f"{place}.{name}"
        )
    return value


def _text(fields: Mapping[str, Any], name: str, place: str, *, empty: bool = False) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise InvalidRequest(f"{place}.{name} is not text", param=f"{place}.{name}")
    return value
