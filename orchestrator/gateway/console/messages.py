"""Converts the messages of a conversation for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import orjson

from agentapi.conversation.attachments import describe
from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    Message,
    ToolMessage,
    UserMessage,
)
from agentapi.stores.conversations import StoredMessage
from orchestrator.gateway.console.entries import turn_address
from orchestrator.gateway.console.security import ROOT

PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Media types that a page shows as images. Browsers run no scripts in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEntry:
    """A tool call of a model. `arguments` is JSON, or the model's text if that is not JSON."""

    name: str
    call_id: str
    arguments: str
    by_client: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachmentEntry:
    """An image or a file.

    Attributes:
        address: Address of its bytes; None if a provider fetches it from `url`.
        picture: Whether a page may show it as a picture.
    """

    what: str
    address: str | None
    url: str | None
    size: int
    picture: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageEntry:
    """A message.

    Attributes:
        position: Its place in the history, counted from 0.
        address: The page with the full message.
        role: The role of its author.
        label: The model that answered, or the tool.
        text: The text of the message.
        turn_address: The page of its turn, on the first message of a turn.
        note: Why the model stopped early, or that a tool failed.
    """

    position: int
    address: str
    role: str
    label: str | None
    text: str
    calls: Sequence[CallEntry]
    attachments: Sequence[AttachmentEntry]
    turn_id: str | None
    turn_address: str | None
    note: str | None


def message_entries(conversation_id: str, messages: Sequence[StoredMessage]) -> list[MessageEntry]:
    """Convert messages for a page, in order."""
    entries = []
    turn_id = None
    for kept in messages:
        begins = kept.message.turn_id not in (None, turn_id)
        turn_id = kept.message.turn_id
        entries.append(message_entry(conversation_id, kept, begins_turn=begins))
    return entries


def message_entry(conversation_id: str, kept: StoredMessage, *, begins_turn: bool) -> MessageEntry:
    """Convert a message for a page."""
    message, at = kept.message, kept.position
    label, note = _label_and_note(message)
    calls: tuple[CallEntry, ...] = ()
    if isinstance(message, AssistantMessage):
        calls = tuple(
            CallEntry(
                name=call.name,
                call_id=call.id,
                arguments=call.malformed
                if call.malformed is not None
                else orjson.dumps(dict(call.arguments), option=orjson.OPT_INDENT_2).decode(),
                by_client=call.client,
            )
            for call in message.tool_calls
        )
    attachments: tuple[AttachmentEntry, ...] = ()
    if isinstance(message, UserMessage):
        attachments = tuple(_attachment(conversation_id, at, each) for each in message.attachments)
    return MessageEntry(
        position=at,
        address=_address("message", conversation_id, at),
        role=message.role,
        label=label,
        text=message.content,
        calls=calls,
        attachments=attachments,
        turn_id=message.turn_id,
        turn_address=turn_address(message.turn_id) if begins_turn and message.turn_id else None,
        note=note,
    )


def _label_and_note(message: Message) -> tuple[str | None, str | None]:
    match message:
        case AssistantMessage():
            complete = message.finish_reason in ("stop", "tool_calls")
            return message.model, None if complete else f"stopped: {message.finish_reason.value}"
        case ToolMessage():
            return message.name, "the tool failed" if message.is_error else None
        case _:
            return None, None


def _attachment(conversation_id: str, at: int, attachment: Attachment) -> AttachmentEntry:
    address = None
    if attachment.blob is not None:
        address = _address("attachment", conversation_id, at, name=attachment.blob)
    return AttachmentEntry(
        what=describe(attachment),
        address=address,
        url=attachment.url,
        size=attachment.size,
        picture=address is not None and attachment.media_type in PICTURES,
    )


def _address(page: str, conversation_id: str, at: int, **more: str) -> str:
    return f"{ROOT}/conversation/{page}?{urlencode({'id': conversation_id, 'at': at, **more})}"
