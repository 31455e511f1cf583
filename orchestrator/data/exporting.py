"""Exports conversations with bounded memory: one part of one history at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import orjson

from agentapi.errors import ConversationBusy, InvalidInput
from agentapi.ids import check_conversation_id
from agentapi.stores import TurnStore
from agentapi.stores.data import Snapshot, Whose
from orchestrator.data.records import (
    DoneRecord,
    EndRecord,
    RestartRecord,
    blob_line,
    header,
    line_of,
    message_line,
    record_of,
)

_PIECE: Final = 64
"""Messages in one read."""

_ATTEMPTS: Final = 10
"""How many times a conversation is read if messages are removed from it during the read."""


@dataclass
class ExportCounts:
    """What an export has written so far."""

    conversations: int = 0
    messages: int = 0
    blobs: int = 0
    missing_blobs: int = 0


@dataclass
class Export:
    """An export. It reads data as its lines are consumed.

    Attributes:
        store: The store with the conversations.
        conversations: Their ids.
        counts: What was written so far; final once the lines have ended.
    """

    store: TurnStore
    conversations: Iterable[str]
    counts: ExportCounts = field(default_factory=ExportCounts)

    def lines(self) -> Iterator[bytes]:
        """The lines, one for each object, with their newlines.

        Raises:
            ConversationBusy: A conversation changed during every attempt to read it.
            StoreUnavailable: Redis is out of reach.
        """
        yield line_of(header())
        with self.store.data.reading():
            for conversation_id in self.conversations:
                yield from self._conversation(conversation_id)
        counts = self.counts
        yield line_of(DoneRecord(conversations=counts.conversations, messages=counts.messages))

    def _conversation(self, conversation_id: str) -> Iterator[bytes]:
        for attempt in range(_ATTEMPTS):
            snapshot = self.store.data.snapshot(conversation_id)
            if snapshot is None:
                # It was deleted after it was found, perhaps during the read.
                if attempt:
                    yield line_of(RestartRecord(conversation_id=conversation_id))
                return
            if attempt:
                yield line_of(RestartRecord(conversation_id=conversation_id))
            blobs = _Blobs(self.store, conversation_id)
            yield line_of(record_of(snapshot))
            yield from self._messages(snapshot, blobs)
            if self._unchanged(snapshot):
                yield line_of(
                    EndRecord(
                        conversation_id=conversation_id,
                        messages=snapshot.messages,
                        blobs=blobs.found,
                        missing_blobs=blobs.missing,
                    )
                )
                self.counts.conversations += 1
                self.counts.messages += snapshot.messages
                self.counts.blobs += blobs.found
                self.counts.missing_blobs += blobs.missing
                return
        raise ConversationBusy(
            f"conversation {conversation_id!r} lost messages each of the {_ATTEMPTS} times that it "
            "was read: export it again later"
        )

    def _messages(self, snapshot: Snapshot, blobs: _Blobs) -> Iterator[bytes]:
        for start in range(0, snapshot.messages, _PIECE):
            stop = min(start + _PIECE, snapshot.messages) - 1
            for raw in self.store.data.raw(snapshot.conversation_id, start, stop):
                yield message_line(raw)
                yield from blobs.of(raw)

    def _unchanged(self, snapshot: Snapshot) -> bool:
        """Whether the messages are still those of the snapshot. New messages are appended after
        them; removing one would move the others."""
        now = self.store.data.snapshot(snapshot.conversation_id)
        if now is None or now.generation != snapshot.generation:
            return False
        if not snapshot.messages:
            return True
        last = snapshot.messages - 1
        return list(self.store.data.raw(snapshot.conversation_id, last, last)) == [snapshot.last]


class _Blobs:
    """Yields the images and files of a conversation, each once."""

    def __init__(self, store: TurnStore, conversation_id: str) -> None:
        self._store = store
        self._conversation_id = conversation_id
        self._seen: set[str] = set()
        self.found = 0
        self.missing = 0

    def of(self, raw: bytes) -> Iterator[bytes]:
        """The images and files of a message that no earlier message has."""
        if b'"attachments":' not in raw:
            return
        for attachment in orjson.loads(raw).get("attachments") or ():
            name = attachment.get("blob")
            if not name or name in self._seen:
                continue
            self._seen.add(name)
            data = self._store.blobs(self._conversation_id, [name]).get(name)
            if data is None:
                self.missing += 1
            else:
                self.found += 1
                yield blob_line(name, data)


def export_of(store: TurnStore, conversation_id: str | None, whose: Whose) -> Export:
    """The export of one conversation, or of those that match the filters.

    Raises:
        InvalidConversationId: The id is not valid.
        InvalidInput: A conversation and a filter are given.
    """
    if conversation_id is None:
        found = store.data.conversations(whose)
        return Export(store, (conversation.conversation_id for conversation in found))
    if whose != Whose():
        raise InvalidInput("give either a conversation or filters, not both")
    return Export(store, [check_conversation_id(conversation_id)])


def count(store: TurnStore, conversation_ids: Iterable[str]) -> ExportCounts:
    """Count what an export would contain, without reading messages."""
    counts = ExportCounts()
    for conversation_id in conversation_ids:
        snapshot = store.data.snapshot(conversation_id)
        if snapshot is not None:
            counts.conversations += 1
            counts.messages += snapshot.messages
    return counts
