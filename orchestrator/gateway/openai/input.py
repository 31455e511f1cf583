"""Reads the messages of a request from the many forms that OpenAI's API allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.conversation.user_input import File, Image
from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.ids import new_message_key
from orchestrator.gateway.openai.attachments import attachment_of

_ITEM_FIELDS: Final = frozenset({"type", "role", "content", "id", "status", "phase"})
_CHAT_FIELDS: Final = frozenset({"role", "content", "refusal", "annotations"})
_TEXT_PARTS: Final = {
    "user": frozenset({"input_text", "text"}),
    "assistant": frozenset({"output_text", "text"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InputMessage:
    """A message of a request."""

    role: Literal["user", "assistant"]
    text: str
    attached: tuple[Image | File, ...] = ()

    def message(self) -> Message:
        """The message as it is added to a history without a turn, under a key of its own.

        Raises:
            UnsupportedParameter: It has images or files, whose bytes are stored with a turn. Only
                the message to be answered may have them.
        """
        if self.attached:
            raise UnsupportedParameter(
                "only the message to be answered may have images and files: send it as a turn of "
                "the conversation",
                param="input",
            )
        if self.role == "user":
            return UserMessage(content=self.text, turn_id=new_message_key())
        return AssistantMessage(content=self.text, turn_id=new_message_key())


def from_input(value: str | Sequence[Any]) -> list[InputMessage]:
    """The messages in `input` of a response.

    Raises:
        InvalidRequest: It is not valid; names the place.
    """
    if isinstance(value, str):
        return [InputMessage(role="user", text=value)]
    return from_items(value, "input")


def from_items(items: Sequence[Any], name: str) -> list[InputMessage]:
    """The messages in items of a response or of a conversation.

    Raises:
        InvalidRequest: They are not valid; names the place.
    """
    found: list[InputMessage] = []
    for number, item in enumerate(items):
        place = f"{name}[{number}]"
        fields = _object(item, place)
        kind = fields.get("type", "message")
        if kind != "message":
            raise UnsupportedParameter(
                f"{place} is an item of type {kind!r}: an agent takes 'message' items only. What "
                "its tools did is in the conversation (conversation, previous_response_id)",
                param=f"{place}.type",
            )
        _refuse_others(fields, _ITEM_FIELDS, place)
        found.append(_to_message(fields, place))
    return found


def from_chat(messages: Sequence[Any]) -> list[InputMessage]:
    """The messages in `messages` of a chat completion.

    Raises:
        InvalidRequest: They are not valid; names the place.
    """
    found: list[InputMessage] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        fields = _object(message, place)
        known = {name: value for name, value in fields.items() if value is not None}
        _refuse_others(known, _CHAT_FIELDS, place)
        found.append(_to_message(fields, place))
    return found


def split(
    messages: Sequence[InputMessage], param: str
) -> tuple[Sequence[InputMessage], InputMessage]:
    """The earlier messages, and the user's message to be answered.

    Raises:
        InvalidRequest: The last message is not the user's.
    """
    if not messages or messages[-1].role != "user":
        raise InvalidRequest(
            f"{param} must end with a message of the user, which the agent answers",
            param=param,
        )
    return messages[:-1], messages[-1]


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{place} is not an object", param=place)
    return value


def _refuse_others(fields: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    for name in fields:
        if name not in known:
            raise UnsupportedParameter(f"{place}.{name} is not supported", param=f"{place}.{name}")


def _to_message(fields: Mapping[str, Any], place: str) -> InputMessage:
    match fields.get("role"):
        case "user":
            text, attached = _content(fields, place, "user")
            return InputMessage(role="user", text=text, attached=attached)
        case "assistant":
            return InputMessage(role="assistant", text=_content(fields, place, "assistant")[0])
        case role:
            raise UnsupportedParameter(
                f"{place} has the role {role!r}: expected 'user' or 'assistant'. Requests cannot "
                "add to an agent's instructions and tools",
                param=f"{place}.role",
            )


def _is_text_part(kind: object, role: str) -> bool:
    return isinstance(kind, str) and kind in _TEXT_PARTS[role]


def _content(
    fields: Mapping[str, Any], place: str, role: str
) -> tuple[str, tuple[Image | File, ...]]:
    content = fields.get("content")
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
        if not _is_text_part(fields.get("type"), role):
            raise UnsupportedParameter(
                f"{where} is a part of type {fields.get('type')!r}: an agent takes text, and "
                "images and files from the user",
                param=f"{where}.type",
            )
        if not isinstance(fields.get("text"), str):
            raise InvalidRequest(f"{where}.text is not text", param=f"{where}.text")
        texts.append(fields["text"])
    return "\n".join(texts), tuple(attached)
