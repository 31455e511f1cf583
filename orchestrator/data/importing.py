"""Imports conversations from an export one by one, each in one step."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentapi.errors import InvalidInput
from agentapi.ids import check_conversation_id
from agentapi.stores import TurnStore
from agentapi.stores.data import Restored, Staging
from orchestrator.data.records import (
    BlobRecord,
    ConversationRecord,
    DoneRecord,
    EndRecord,
    Header,
    MessageRecord,
    Record,
    RestartRecord,
    blob_bytes,
    fields_from,
    raw_message,
    read_line,
)

_PIECE_BYTES: Final = 1_048_576
_PIECE: Final = 200
"""Maximum bytes and messages that are sent to Redis together."""

_REFUSALS: Final[Mapping[Restored, str]] = {
    Restored.EXISTS: "it already exists: replace it with --replace, or replace=True",
    Restored.BUSY: "it has unfinished turns: import it again when they have ended",
    Restored.TENANT: "it belongs to another tenant",
    Restored.LOST: "Redis lost part of it during the import: import it again",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    """The result of `import_conversations`.

    Attributes:
        imported: Conversations that were written; after a dry run, those that would have been.
        unchanged: Conversations that the same export has already imported.
        messages: Messages of the written conversations.
        refused: Conversations that were not written, each with the reason.
        complete: Whether the export has its last line. Otherwise it was cut off, and conversations
            may be missing.
        dry_run: Whether nothing was changed.
    """

    imported: int
    unchanged: int
    messages: int
    refused: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    dry_run: bool = False


class Import:
    """An import. It writes as it reads the lines.

    Attributes:
        result: What was done so far.
    """

    def __init__(self, store: TurnStore, *, replace: bool, dry_run: bool) -> None:
        self._store = store
        self._replace = replace
        self._dry_run = dry_run
        self._current: _Incoming | None = None
        self._begun = self._done = False
        self._imported = self._unchanged = self._messages = 0
        self._refused: dict[str, str] = {}

    @property
    def result(self) -> ImportResult:
        """What was done so far."""
        return ImportResult(
            imported=self._imported,
            unchanged=self._unchanged,
            messages=self._messages,
            refused=dict(self._refused),
            complete=self._done,
            dry_run=self._dry_run,
        )

    def run(self, lines: Iterable[bytes | str]) -> Iterator[ImportResult]:
        """Read all lines; yields the result so far after each conversation.

        Raises:
            InvalidInput: A line is not valid. The conversations before it have been imported.
            StoreUnavailable: Redis is out of reach. The same import may be repeated.
        """
        for number, given in enumerate(lines, 1):
            line = given.encode() if isinstance(given, str) else given
            if line.strip() and self._take(read_line(line, number), line, number):
                yield self.result

    def _take(self, record: Record, line: bytes, number: int) -> bool:
        """Process a line; returns whether it ends a conversation."""
        if not self._begun and not isinstance(record, Header):
            raise InvalidInput("the first line is not the header of an export")
        current = self._current
        match record:
            case Header():
                self._begun = True
            case ConversationRecord():
                check_conversation_id(record.conversation_id)
                self._current = _Incoming(self._store, record, write=not self._dry_run)
                self._current.feed(line)
            case RestartRecord():
                self._current = None
            case DoneRecord():
                self._done = True
            case MessageRecord() if current is not None:
                current.feed(line)
                current.message(raw_message(record, number))
            case BlobRecord() if current is not None:
                current.feed(line)
                current.blob(record.name, blob_bytes(record, number))
            case EndRecord() if current is not None:
                self._finish(current, record, number)
                return True
            case _:
                raise InvalidInput(f"line {number} belongs to no conversation")
        return False

    def _finish(self, current: _Incoming, end: EndRecord, number: int) -> None:
        self._current = None
        if current.count != current.record.messages or current.count != end.messages:
            raise InvalidInput(
                f"line {number}: the conversation has {current.count} messages, but should have "
                f"{current.record.messages}"
            )
        became = current.finish(replace=self._replace)
        if became is Restored.IMPORTED:
            self._imported += 1
            self._messages += current.count
        elif became is Restored.KNOWN:
            self._unchanged += 1
        else:
            self._refused[current.record.conversation_id] = _REFUSALS[became]


class _Incoming:
    """A conversation that is being imported. It becomes visible with its last line."""

    def __init__(self, store: TurnStore, record: ConversationRecord, *, write: bool) -> None:
        self.record = record
        self.count = 0
        self._store = store
        self._write = write
        self._staging = Staging(conversation_id=record.conversation_id, operation=uuid.uuid4().hex)
        self._digest = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._sent = 0
        self._lost = False

    def feed(self, line: bytes) -> None:
        """Add a line to the digest: equal lines mean the same conversation."""
        self._digest.update(line.strip())
        self._digest.update(b"\n")

    def message(self, raw: bytes) -> None:
        """The next message."""
        self.count += 1
        if self._write:
            self._waiting.append(raw)
            self._bytes += len(raw)
            if len(self._waiting) >= _PIECE or self._bytes >= _PIECE_BYTES:
                self._send({})

    def blob(self, name: str, data: bytes) -> None:
        """Bytes of an image or file."""
        if self._write:
            self._send({name: data})

    def _send(self, blobs: Mapping[str, bytes]) -> None:
        staged = self._store.data.stage(self._staging, self._sent, self._waiting, blobs)
        self._lost = self._lost or not staged
        self._sent += len(self._waiting)
        self._waiting, self._bytes = [], 0

    def finish(self, *, replace: bool) -> Restored:
        """Create the conversation, or return what a dry run would do with it."""
        digest = self._digest.hexdigest()
        if not self._write:
            return self._would_be(digest, replace=replace)
        if self._waiting:
            self._send({})
        if self._lost:
            return Restored.LOST
        return self._store.data.restore(
            self._staging,
            fields_from(self.record),
            messages=self.count,
            digest=digest,
            replace=replace,
        )

    def _would_be(self, digest: str, *, replace: bool) -> Restored:
        known = self._store.data.snapshot(self.record.conversation_id)
        if known is None:
            return Restored.IMPORTED
        if known.fields.get("tenant", "") != (self.record.tenant_id or ""):
            return Restored.TENANT
        if known.imported == digest:
            return Restored.KNOWN
        return Restored.IMPORTED if replace else Restored.EXISTS
