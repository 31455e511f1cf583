"""A conversation as rows of the archive's tables, and back.

PostgreSQL's text cannot contain the character NUL, and its JSON functions refuse it. A value with
NUL is therefore stored twice: as it is, and in readable form. In columns that are searched, NUL is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
import sqlalchemy as sa

from agentapi.archive.protocol import ArchivedConversation, ArchivedRow
from agentapi.archive.tables import conversations

AnyRow: TypeAlias = sa.Row[*tuple[Any, ...]]

ROW: Final = tuple(
    conversations.c[name]
    for name in (
        *("conversation_id", "version", "user_id", "tenant_id", "generation", "epoch"),
        *("created", "updated", "archived", "expires", "messages"),
    )
)
"""Columns of an `ArchivedRow`."""

_SUMMARY: Final = "summary"
_ESCAPE: Final = "\ue000"
_NUL: Final = b"\\u0000"


def escaped(text: str) -> str:
    """An id with NUL escaped. Different ids stay different."""
    return text.replace(_ESCAPE, f"{_ESCAPE}1").replace("\x00", f"{_ESCAPE}0")


def unescaped(text: str) -> str:
    """The id from its escaped form."""
    return text.replace(f"{_ESCAPE}0", "\x00").replace(f"{_ESCAPE}1", _ESCAPE)


def row_of(found: AnyRow) -> ArchivedRow:
    """An `ArchivedRow` from a result with the columns `ROW`, and perhaps others."""
    values = {column.name: found._mapping[column] for column in ROW}
    for name in ("conversation_id", "user_id", "tenant_id"):
        values[name] = unescaped(values[name])
    return ArchivedRow(**values)


def conversation_values(conversation: ArchivedConversation) -> dict[str, Any]:
    """The row of `conversations`."""
    row, fields = conversation.row, conversation.fields
    values: dict[str, Any] = {column.name: getattr(row, column.name) for column in ROW}
    for name in ("conversation_id", "user_id", "tenant_id"):
        values[name] = escaped(values[name])
    agent = fields.get("agent")
    return values | {
        "messages": len(conversation.messages),
        "agent": None if agent is None else readable(agent),
        "turns": _whole(fields.get("turns")),
        "tokens": _whole(fields.get("tokens")),
        "cost": _real(fields.get("cost")),
        "metadata": as_object(fields.get("metadata")),
        "fields": orjson.dumps(_kept(fields)).decode(),
    }


def summary_values(conversation: ArchivedConversation, copy_id: int) -> list[dict[str, Any]]:
    """The row of `summaries`, if there is a summary."""
    text = conversation.fields.get(_SUMMARY)
    if text is None:
        return []
    covered = _whole(conversation.fields.get("covered"))
    return [{"copy_id": copy_id, "covered": covered, "text": readable(text)}]


def message_values(messages: Iterable[bytes], copy_id: int) -> list[dict[str, Any]]:
    """The rows of `messages`."""
    return [
        {"copy_id": copy_id, "position": position, **_message(message)}
        for position, message in enumerate(messages)
    ]


def blob_values(blobs: Mapping[str, bytes], copy_id: int) -> list[dict[str, Any]]:
    """The rows of `blobs`."""
    return [{"copy_id": copy_id, "name": name, "data": data} for name, data in blobs.items()]


def message_bytes(body: str | None, raw: bytes | None) -> bytes:
    """A message in its original form."""
    return bytes(raw) if raw is not None else (body or "").encode()


def fields_of(stored: str, summary: str | None) -> dict[str, str]:
    """The fields of a conversation in their original form."""
    fields: dict[str, str] = orjson.loads(stored)
    if summary is not None:
        fields.setdefault(_SUMMARY, summary)
    return fields


def _kept(fields: Mapping[str, str]) -> dict[str, str]:
    """Fields, without the summary if the table of summaries has the same text."""
    summary = fields.get(_SUMMARY)
    if summary is None or "\x00" in summary:
        return dict(fields)
    return {name: value for name, value in fields.items() if name != _SUMMARY}


def _message(message: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(message)
    except orjson.JSONDecodeError:
        return {"role": None, "body": None, "raw": message}
    role = found.get("role") if isinstance(found, dict) else None
    role = readable(role) if isinstance(role, str) else None
    if _NUL not in message:
        return {"role": role, "body": message.decode(), "raw": None}
    return {"role": role, "body": orjson.dumps(_clean(found)).decode(), "raw": message}


def _clean(value: Any) -> Any:
    match value:
        case str():
            return readable(value)
        case dict():
            return {readable(name): _clean(item) for name, item in value.items()}
        case list():
            return [_clean(item) for item in value]
        case _:
            return value


def readable(text: str) -> str:
    """Text for people, without NUL."""
    return text.replace("\x00", "\ufffd")


def as_object(text: str | None) -> str:
    """A JSON object for people, without NUL; empty if the text is not a JSON object."""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        found = {}
    return orjson.dumps(_clean(found) if isinstance(found, dict) else {}).decode()


def _whole(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _real(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def conversation_of(
    found: AnyRow,
    summary: str | None,
    messages: Sequence[AnyRow],
    blobs: Sequence[AnyRow],
) -> ArchivedConversation:
    """A conversation from its rows."""
    return ArchivedConversation(
        row=row_of(found),
        fields=fields_of(found._mapping[conversations.c.fields], summary),
        messages=tuple(message_bytes(body, raw) for body, raw in messages),
        blobs={name: bytes(data) for name, data in blobs},
    )
