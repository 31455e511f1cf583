"""The lines of an export: JSON objects, each with a `type`; see docs/guides/backup.md."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agentapi.conversation.messages import dumps, from_dict
from agentapi.errors import InvalidInput, UnreadableRecord
from agentapi.ids import MAX_CONVERSATION_ID
from agentapi.stores.data import ACTIVE, Snapshot

VERSION: Final = 1
"""Version of the schema. Adding fields does not change it."""


class _Line(BaseModel):
    # Fields of a newer release are ignored.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Header(_Line):
    """The first line."""

    type: Literal["export"] = "export"
    version: int = VERSION
    release: str = ""


class SummaryRecord(_Line):
    """The summary of the first messages of a conversation."""

    text: str
    covered: int = Field(ge=0)


class ConversationRecord(_Line):
    """A conversation, followed by its messages, images and files. Times are seconds since 1970."""

    type: Literal["conversation"] = "conversation"
    conversation_id: str = Field(min_length=1, max_length=MAX_CONVERSATION_ID)
    user_id: str | None = None
    tenant_id: str | None = None
    created_at: float
    updated_at: float
    agent: str | None = None
    idle_time: float | None = None
    metadata: dict[str, Any] = {}
    summary: SummaryRecord | None = None
    answering: dict[str, str] = {}
    turns: int = 0
    steps: int = 0
    tokens: int = 0
    cost: float = 0.0
    calibration: float | None = None
    contexts: dict[str, int] = {}
    messages: int = Field(ge=0)


class MessageRecord(_Line):
    """A message as it is stored."""

    type: Literal["message"] = "message"
    message: dict[str, Any]


class BlobRecord(_Line):
    """The bytes, in base64, of an image or file that an earlier message names."""

    type: Literal["blob"] = "blob"
    name: str
    data: str


class RestartRecord(_Line):
    """The conversation changed while it was read: its lines so far do not count."""

    type: Literal["restart"] = "restart"
    conversation_id: str


class EndRecord(_Line):
    """The conversation is complete."""

    type: Literal["end"] = "end"
    conversation_id: str
    messages: int
    blobs: int
    missing_blobs: int = 0


class DoneRecord(_Line):
    """The last line: the export is complete."""

    type: Literal["done"] = "done"
    conversations: int
    messages: int


Record = (
    Header
    | ConversationRecord
    | MessageRecord
    | BlobRecord
    | RestartRecord
    | EndRecord
    | DoneRecord
)

_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(Annotated[Record, Field(discriminator="type")])


def header() -> Header:
    """The first line of an export of this release."""
    return Header(release=version("agentapi"))


def line_of(record: Record) -> bytes:
    """A record as a line with its newline."""
    return orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_APPEND_NEWLINE)


def message_line(raw: bytes) -> bytes:
    """A stored message as a line. It is not decoded, so nothing of it changes."""
    return b'{"type":"message","message":' + raw + b"}\n"


def blob_line(name: str, data: bytes) -> bytes:
    """The bytes of an image or file as a line."""
    return line_of(BlobRecord(name=name, data=base64.b64encode(data).decode()))


def read_line(line: bytes, number: int) -> Record:
    """Read a line.

    Args:
        line: The line.
        number: Line number from 1, for errors.

    Raises:
        InvalidInput: It is not a line of an export, or the export is too new for this release.
    """
    try:
        record = _RECORD.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(
            f"line {number} is not a line of an export: {where or 'it'}: {first['msg']}"
        ) from None
    if isinstance(record, Header) and record.version > VERSION:
        raise InvalidInput(
            f"the export has version {record.version} of the schema, but this release reads "
            f"version {VERSION}: import it with the release that wrote it, {record.release}"
        )
    return record


def raw_message(record: MessageRecord, number: int) -> bytes:
    """The message in its stored form.

    Raises:
        InvalidInput: It is not a message that this release can read.
    """
    try:
        return dumps(from_dict(record.message))
    except UnreadableRecord as error:
        raise InvalidInput(f"line {number} has no valid message: {error}") from error


def blob_bytes(record: BlobRecord, number: int) -> bytes:
    """Decode the bytes of an image or file.

    Raises:
        InvalidInput: The bytes do not match their name.
    """
    try:
        data = base64.b64decode(record.data, validate=True)
    except ValueError:
        raise InvalidInput(f"line {number}: data is not base64") from None
    if hashlib.sha256(data).hexdigest() != record.name:
        raise InvalidInput(f"line {number}: the bytes do not match the hash in their name")
    return data


def record_of(snapshot: Snapshot) -> ConversationRecord:
    """A conversation as a record. Unknown fields are left out."""
    fields = snapshot.fields
    numbers = {name: _number(fields.get(name)) for name in ("turns", "steps", "tokens", "covered")}
    summary = fields.get("summary")
    return ConversationRecord(
        conversation_id=snapshot.conversation_id,
        user_id=fields.get("user") or None,
        tenant_id=fields.get("tenant") or None,
        created_at=_number(fields.get("created")) / 1000,
        updated_at=_number(fields.get("updated")) / 1000,
        agent=fields.get("agent"),
        idle_time=_number(fields.get("ttl")) / 1000 or None,
        metadata=_object(fields.get("metadata")),
        summary=SummaryRecord(text=summary, covered=numbers["covered"]) if summary else None,
        answering={
            name.removeprefix(ACTIVE): other
            for name, other in fields.items()
            if name.startswith(ACTIVE)
        },
        turns=numbers["turns"],
        steps=numbers["steps"],
        tokens=numbers["tokens"],
        cost=_real(fields.get("cost")) or 0.0,
        calibration=_real(fields.get("calibration")),
        contexts={k: v for k, v in _object(fields.get("contexts")).items() if isinstance(v, int)},
        messages=snapshot.messages,
    )


def fields_from(record: ConversationRecord) -> dict[str, str]:
    """Convert a record back to the fields of its `Snapshot`."""
    fields = {
        "created": f"{record.created_at * 1000:.0f}",
        "updated": f"{record.updated_at * 1000:.0f}",
        "user": record.user_id or "",
        "tenant": record.tenant_id or "",
        "metadata": orjson.dumps(record.metadata).decode(),
        "turns": str(record.turns),
        "steps": str(record.steps),
        "tokens": str(record.tokens),
        "cost": repr(record.cost),
    }
    if record.agent:
        fields["agent"] = record.agent
    if record.idle_time:
        fields["ttl"] = f"{record.idle_time * 1000:.0f}"
    if record.summary is not None:
        fields |= {"summary": record.summary.text, "covered": str(record.summary.covered)}
    if record.calibration is not None:
        fields["calibration"] = repr(record.calibration)
    if record.contexts:
        fields["contexts"] = orjson.dumps(record.contexts).decode()
    return fields | {f"{ACTIVE}{agent}": other for agent, other in record.answering.items()}


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _real(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
