"""Ids of OpenAI's objects, derived from the ids of turns."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TypeGuard

from agentapi.conversation.messages import Message
from orchestrator.gateway.http.errors import NotFound

_TURN = re.compile(r"\d{3}-[0-9a-f]{32}")
_ITEM = re.compile(
    r"(?:msg|mcp|mcpr|fc|fco)_(?:(?P<begin>\d{3}|item)(?P<rest>[0-9a-f]{32})|at(?P<position>\d{1,15}))_\w+",
    re.ASCII,
)
_CHAT = re.compile(r"chatcmpl-(\d{3})([0-9a-f]{32})(?:_([1-9]\d{0,4}))?")
_RESPONSE = re.compile(r"resp_(\d{3})([0-9a-f]{32})(?:_([1-9]\d{0,4}))?")
_CALL = re.compile(r"call_(\d{3})([0-9a-f]{32})_(\d{1,5})_(\d{1,5})", re.ASCII)
_APPROVAL = re.compile(r"mcpr_(\d{3})([0-9a-f]{32})_[0-9a-f]{12}", re.ASCII)


def turn_key(turn_id: str) -> str:
    """A turn's id without its dash, as it appears in other ids."""
    return turn_id.replace("-", "")


def response_id(turn_id: str, part: int = 0) -> str:
    """The id of a turn as a response, or of one of the responses that continue it.

    Args:
        turn_id: The turn.
        part: Number of the turn's part, counted from 0: a part ends where the turn asks its client.
    """
    more = f"_{part}" if part else ""
    return f"resp_{turn_key(turn_id)}{more}"


def turn_id_of(response: str) -> str:
    """The id of a response's turn.

    Raises:
        NotFound: The text is not the id of a response.
    """
    match = _RESPONSE.fullmatch(response)
    if match is None:
        raise NotFound(f"there is no response {response!r}", code="response_not_found")
    return f"{match[1]}-{match[2]}"


def part_of_chat(completion: str) -> int:
    """The number of the part of a turn that a chat completion shows; see `response_id`."""
    match = _CHAT.fullmatch(completion)
    return int(match[3] or 0) if match is not None else 0


def part_of(response: str) -> int:
    """The number of the part of a turn that a response shows; see `response_id`."""
    match = _RESPONSE.fullmatch(response)
    return int(match[3] or 0) if match is not None else 0


def function_call_id(turn_id: str, response: int, place: int) -> str:
    """The id by which a client knows a call of one of its functions.

    Args:
        turn_id: The turn, or the key of a message.
        response: Number of the response with the call among the turn's responses, from 0.
        place: The call's place among the calls of the response, from 0.
    """
    return f"call_{turn_key(turn_id)}_{response}_{place}"


def turn_of_call(call_id: str) -> str | None:
    """The turn in the id of a function call or a request for approval; None for other ids."""
    match = _CALL.fullmatch(call_id) or _APPROVAL.fullmatch(call_id)
    return f"{match[1]}-{match[2]}" if match is not None else None


def function_item_id(call_id: str) -> str:
    """The item id of a function call, from its `function_call_id`."""
    return f"fc_{call_id.removeprefix('call_')}"


def output_item_id(call_id: str) -> str:
    """The item id of a function call's output, from its `function_call_id`."""
    return f"fco_{call_id.removeprefix('call_')}"


def approval_id(turn_id: str, call_id: str) -> str:
    """The id of the request to approve a turn's call."""
    return f"mcpr_{turn_key(turn_id)}_{hashlib.sha256(call_id.encode()).hexdigest()[:12]}"


def turn_id_from(text: str) -> str:
    """A turn's id, which may be given as the id of a response or of a chat completion."""
    match = _RESPONSE.fullmatch(text) or _CHAT.fullmatch(text)
    return f"{match[1]}-{match[2]}" if match else text


def turn_id_of_chat(completion: str) -> str:
    """The id of a chat completion's turn.

    Raises:
        NotFound: The text is not the id of a chat completion.
    """
    match = _CHAT.fullmatch(completion)
    if match is None:
        raise NotFound(
            f"there is no stored chat completion {completion!r}", code="chat_completion_not_found"
        )
    return f"{match[1]}-{match[2]}"


def is_turn_id(text: str | None) -> TypeGuard[str]:
    """Whether a message belongs to a turn, rather than being an item that a client added."""
    return text is not None and _TURN.fullmatch(text) is not None


def user_item_id(turn_id: str) -> str:
    """The id of a turn's user message."""
    return f"msg_{turn_key(turn_id)}_u"


def text_item_id(turn_id: str, number: int) -> str:
    """The id of the text of one of a turn's model responses, counted from 0."""
    return f"msg_{turn_key(turn_id)}_a{number}"


def call_item_id(turn_id: str, call_id: str) -> str:
    """The id of a turn's tool call."""
    return f"mcp_{turn_key(turn_id)}_{hashlib.sha256(call_id.encode()).hexdigest()[:12]}"


def new_conversation_id(name: str | None = None) -> str:
    """A new conversation id. If a name is given, the same name gives the same id."""
    made = uuid.uuid4() if name is None else uuid.uuid5(uuid.NAMESPACE_OID, f"gateway:{name}")
    return f"conv_{made.hex}"


def new_message_key() -> str:
    """A key that replaces the turn's id in a message that a client added to a history."""
    return f"item-{uuid.uuid4().hex}"


def name_of_item(item_id: str) -> str | int | None:
    """The source of an item's id: a turn's id, a message key or a position; otherwise None."""
    match = _ITEM.fullmatch(item_id)
    if match is None:
        return None
    if match["position"]:
        return int(match["position"])
    return f"{match['begin']}-{match['rest']}"


def key_of(message: Message, position: int) -> str:
    """The source of the ids of a message's items: its turn, or otherwise its position."""
    return message.turn_id or f"at{position}"
