"""Reads the messages and items of a request from the many forms that OpenAI's API allows.

Items of earlier responses are read here as they were sent; `given_back` looks up the originals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.conversation.user_input import File, Image
from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.ids import new_message_key
from orchestrator.gateway.openai.attachments import attachment_of
from orchestrator.gateway.openai.function_items import (
    ApprovalDecision,
    FunctionCall,
    FunctionOutput,
    FunctionRound,
    approval,
    chat_calls,
    chat_output,
    function_call,
    function_output,
)
from orchestrator.gateway.openai.items import summary_in

_ITEM_FIELDS: Final = frozenset({"type", "role", "content", "id", "status", "phase", "name"})
_CHAT_FIELDS: Final = frozenset(
    {"role", "content", "refusal", "annotations", "name", "tool_calls", "tool_call_id"}
)
_NOTHING: Final[tuple[Any, ...]] = (None, [], {})
"""Field values without meaning: clients send back fields that they received."""

_CALL_FIELDS: Final = frozenset(
    {"type", "id", "name", "server_label", "arguments", "output", "error", "status"}
    | {"approval_request_id"}
)
_EARLIER: Final = "What was said earlier in this conversation, in short:"

_TEXT_PARTS: Final = {
    "user": frozenset({"input_text", "text"}),
    "system": frozenset({"input_text", "text"}),
    "assistant": frozenset({"output_text", "text"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InputMessage:
    """A message of a request.

    Attributes:
        id: Its id as an item, if it was one.
    """

    role: Literal["user", "assistant"]
    text: str
    attached: tuple[Image | File, ...] = ()
    id: str | None = None

    def message(self, key: str | None = None) -> Message:
        """The message as it is added to a history without a turn.

        Args:
            key: Replaces the turn's id; a new key when not given.

        Raises:
            UnsupportedParameter: It has images or files, whose bytes are stored with a turn. Only
                the message to be answered may have them.
        """
        if self.attached:
            raise UnsupportedParameter(
                "only the message to answer may contain images and files: send it as a turn of the "
                "conversation",
                param="input",
            )
        if self.role == "user":
            return UserMessage(content=self.text, turn_id=key or new_message_key())
        return AssistantMessage(content=self.text, turn_id=key or new_message_key())


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """An instruction to the model in addition to the agent's prompt, and its parameter."""

    text: str
    place: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenCall:
    """A tool call of an earlier response, as the client sends it back.

    Attributes:
        id: Its id as an item.
        arguments: Its arguments as they were sent, usually a JSON object.
        output: Its result; None if it has none.
        failed: Whether the result is an error.
    """

    id: str
    name: str
    arguments: str
    output: str | None
    failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An item that the client names only by its id."""

    id: str
    place: str


Entry: TypeAlias = (
    InputMessage
    | GivenCall
    | Reference
    | FunctionCall
    | FunctionOutput
    | ApprovalDecision
    | FunctionRound
)
"""An entry of a request's input that is not an instruction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """The content of a request: the conversation so far, and instructions to the model."""

    entries: Sequence[Entry]
    instructions: Sequence[Instruction] = ()

    def conversation(self, param: str) -> Sequence[Entry]:
        """The entries, for requests in which instructions are not allowed.

        Raises:
            UnsupportedParameter: There are instructions.
        """
        if self.instructions:
            raise UnsupportedParameter(
                f"{self.instructions[0].place} is a system message, which a conversation cannot "
                "contain. Send it with the request that starts a turn (`instructions`, or a system "
                "message)",
                param=param,
            )
        return self.entries


def from_input(value: str | Sequence[Any]) -> Input:
    """Read `input` of a response.

    Raises:
        InvalidRequest: It is not valid; names the place.
    """
    if isinstance(value, str):
        return Input(entries=[InputMessage(role="user", text=value)])
    return from_items(value, "input")


def from_items(items: Sequence[Any], name: str) -> Input:
    """Read items of a response or of a conversation.

    Raises:
        InvalidRequest: They are not valid; names the place.
    """
    entries: list[Entry] = []
    instructions: list[Instruction] = []
    for number, item in enumerate(items):
        place = f"{name}[{number}]"
        fields = _object(item, place)
        match fields.get("type") or ("message" if "role" in fields else "item_reference"):
            case "message":
                _refuse_others(fields, _ITEM_FIELDS, place)
                _add_message(fields, place, entries, instructions)
            case "mcp_call":
                entries.append(_call(fields, place))
            case "function_call":
                entries.append(function_call(fields, place))
            case "function_call_output":
                entries.append(function_output(fields, place))
            case "mcp_approval_response":
                entries.append(approval(fields, place))
            case "mcp_approval_request":
                # The turn contains the request for approval.
                continue
            case "item_reference":
                entries.append(Reference(id=_text(fields, "id", place), place=place))
            case "compaction":
                entries.append(_summary(fields, place))
            case kind:
                raise UnsupportedParameter(
                    f"{place} is an item of type {kind!r}: an agent accepts messages and the items "
                    "of its own responses",
                    param=f"{place}.type",
                )
    return Input(entries=entries, instructions=instructions)


def from_chat(messages: Sequence[Any]) -> Input:
    """Read `messages` of a chat completion.

    Raises:
        InvalidRequest: They are not valid; names the place.
    """
    entries: list[Entry] = []
    instructions: list[Instruction] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        fields = _object(message, place)
        _refuse_others(fields, _CHAT_FIELDS, place)
        if fields.get("role") == "tool":
            entries.append(chat_output(fields, place))
            continue
        calls = chat_calls(fields.get("tool_calls") or [], place)
        if not calls or fields.get("content"):
            _add_message(fields, place, entries, instructions)
        entries += calls
    return Input(entries=entries, instructions=instructions)


def split(
    entries: Sequence[Entry], param: str
) -> tuple[Sequence[Entry], InputMessage, Sequence[Entry]]:
    """The earlier entries, the user's message to answer, and what has already been done about it.

    Raises:
        InvalidRequest: The last entry is neither a message of the user nor the output of a
            function.
    """
    at, message = next(
        (
            (at, entry)
            for at, entry in reversed(list(enumerate(entries)))
            if isinstance(entry, InputMessage) and entry.role == "user"
        ),
        (-1, None),
    )
    since = entries[at + 1 :]
    done = any(isinstance(entry, FunctionRound) and entry.outputs for entry in since)
    done = done and isinstance(since[-1], FunctionRound | GivenCall)
    if message is None or (since and not done):
        raise InvalidRequest(
            f"{param} must end with a user message for the agent to answer, or with the outputs of "
            "functions that it called",
            param=param,
        )
    return entries[:at], message, since


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{place} is not an object", param=place)
    return value


def _text(fields: Mapping[str, Any], name: str, place: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{place}.{name} is not text", param=f"{place}.{name}")
    return value


def _refuse_others(fields: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    for name, value in fields.items():
        if name not in known and value not in _NOTHING:
            raise UnsupportedParameter(
                f"{place}.{name} is not supported: omit it", param=f"{place}.{name}"
            )


def _call(fields: Mapping[str, Any], place: str) -> GivenCall:
    _refuse_others(fields, _CALL_FIELDS, place)
    output, error = fields.get("output"), fields.get("error")
    if output is not None and not isinstance(output, str):
        raise InvalidRequest(f"{place}.output is not text", param=f"{place}.output")
    if error is not None:
        said = error.get("content") if isinstance(error, Mapping) else error
        output = said if isinstance(said, str) else orjson.dumps(error).decode()
    return GivenCall(
        id=_text(fields, "id", place),
        name=_text(fields, "name", place),
        arguments=str(fields.get("arguments") or "{}"),
        output=output,
        failed=error is not None,
    )


def _summary(fields: Mapping[str, Any], place: str) -> InputMessage:
    """The summary that replaces earlier messages."""
    summary = summary_in(_text(fields, "encrypted_content", place))
    if summary is None:
        raise UnsupportedParameter(
            f"{place} is not a compaction that this gateway made (POST /v1/responses/compact)",
            param=f"{place}.encrypted_content",
        )
    # A user message, because some providers refuse a history that begins with the assistant.
    return InputMessage(role="user", text=f"{_EARLIER}\n{summary}")


def _add_message(
    fields: Mapping[str, Any],
    place: str,
    entries: list[Entry],
    instructions: list[Instruction],
) -> None:
    item_id = fields.get("id")
    known = item_id if isinstance(item_id, str) else None
    match fields.get("role"):
        case "user":
            text, attached = _content(fields, place, "user")
            entries.append(InputMessage(role="user", text=text, attached=attached, id=known))
        case "assistant":
            text = _content(fields, place, "assistant")[0]
            entries.append(InputMessage(role="assistant", text=text, id=known))
        case "system" | "developer":
            text = _content(fields, place, "system")[0]
            instructions.append(Instruction(text=text, place=place))
        case role:
            raise UnsupportedParameter(
                f"{place} has the role {role!r}: expected 'user', 'assistant', 'system' or "
                "'developer'",
                param=f"{place}.role",
            )


def _is_text_part(kind: object, role: str) -> bool:
    return isinstance(kind, str) and kind in _TEXT_PARTS[role]


def _content(
    fields: Mapping[str, Any], place: str, role: str
) -> tuple[str, tuple[Image | File, ...]]:
    content = fields.get("content")
    if role == "assistant" and not content and isinstance(fields.get("refusal"), str):
        # The refusal that the model gave instead of a reply.
        content = fields["refusal"]
    place = f"{place}.content"
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidRequest(f"{place} is neither text nor a list of parts", param=place)
    texts: list[str] = []
    attached: list[Image | File] = []
    for number, part in enumerate(content):
        where = f"{place}[{number}]"
        fields = _object(part, where)
        if role == "user" and (found := attachment_of(fields, where)) is not None:
            attached.append(found)
            continue
        if role == "assistant" and fields.get("type") == "refusal":
            texts.append(_text(fields, "refusal", where))
            continue
        if not _is_text_part(fields.get("type"), role):
            raise UnsupportedParameter(
                f"{where} is a part of type {fields.get('type')!r}: an agent accepts text, and "
                "images and files from the user",
                param=f"{where}.type",
            )
        if not isinstance(fields.get("text"), str):
            raise InvalidRequest(f"{where}.text is not text", param=f"{where}.text")
        texts.append(fields["text"])
    return "\n".join(texts), tuple(attached)
