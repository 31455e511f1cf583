"""A conversation's history, read in small parts so that no other request waits for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from agentapi.conversation.messages import Message, UserMessage
from agentapi.stores.conversations import (
    END,
    Place,
    Reading,
    Search,
    SearchOn,
    StoredMessage,
)
from agentapi.stores.redis import conversation_scripts as scripts
from orchestrator.gateway.conversations.records import Conversations

FIRST_BYTES: Final = 16_384
PIECE_BYTES: Final = 262_144
"""Bytes of messages that are read and decoded in one step, which takes one or two milliseconds.
Readers that may need only a few messages start with the smaller number."""

SCAN_MESSAGES: Final = 2_000
"""Messages that Redis searches in one step, which takes it about a millisecond."""

SCAN_BYTES: Final = 1_048_576
"""Bytes that Redis searches in one step."""


class History:
    """Reads a tenant's conversation. Reads return None if it does not exist or belongs to another
    tenant."""

    def __init__(self, store: Conversations, conversation_id: str, tenant: str) -> None:
        """Create the reader; nothing is read yet.

        Args:
            store: The store of the conversation.
            conversation_id: Its id in Redis.
            tenant: The tenant that it must belong to.
        """
        self._store = store
        self._tenant = tenant
        self._conversation_id = conversation_id

    async def piece(
        self, first: int = 0, last: int = END, *, up: bool = True, most: int = PIECE_BYTES
    ) -> tuple[int, list[StoredMessage]] | None:
        """Read messages by position until there are enough bytes, at least one.

        Args:
            first: The first position.
            last: The last position.
            up: Whether to read from the first position on, or from the last position back.
            most: Bytes after which reading stops.

        Returns:
            The number of messages in the history, and those read, in the order of reading.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        reading = Reading(first=first, last=last, up=up, max_bytes=most)
        run = scripts.page(self._conversation_id, self._tenant, reading)
        page = await self._store.step(self._tenant, run)
        return None if page is None else (page.total, list(page.messages))

    async def messages(self, start: int, count: int, most: int) -> tuple[int, list[Message]] | None:
        """Messages from a position on.

        Args:
            start: The first position.
            count: Maximum number of messages to read.
            most: Bytes after which reading stops.

        Returns:
            The number of messages in the history, and those read; fewer than `count` when there are
            no more, or when they are large.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        found: list[Message] = []
        total = read = 0
        # In parts, because other clients wait while Redis reads one and this process decodes it.
        while len(found) < count and read < most:
            answer = await self.piece(start + len(found), start + count - 1)
            if answer is None:
                return None
            total, piece = answer
            if not piece:
                break
            found += [kept.message for kept in piece]
            read += sum(len(kept.raw) for kept in piece)
        return total, found

    async def up(self, first: int) -> AsyncGenerator[list[StoredMessage], None]:
        """Groups of messages of one turn or item, oldest first; see `_begins`.

        Args:
            first: Position of a message that begins a group.
        """
        group: list[StoredMessage] = []
        most = FIRST_BYTES
        while (answer := await self.piece(first, most=most)) is not None and answer[1]:
            most = min(2 * most, PIECE_BYTES)
            for kept in answer[1]:
                if group and _begins(kept.message, group[-1].message):
                    yield group
                    group = []
                group.append(kept)
            first = group[-1].position + 1
        if group:
            yield group

    async def down(self, last: int = END) -> AsyncGenerator[list[StoredMessage], None]:
        """The same groups, newest first. Within a group the oldest message is first.

        Args:
            last: Position of a message that ends a group.
        """
        group: list[StoredMessage] = []
        most = FIRST_BYTES
        while last >= 0:
            answer = await self.piece(0, last, up=False, most=most)
            if answer is None or not answer[1]:
                break
            most = min(2 * most, PIECE_BYTES)
            for kept in answer[1]:
                if group and _begins(group[-1].message, kept.message):
                    yield group[::-1]
                    group = []
                group.append(kept)
            last = group[-1].position - 1
        if group:
            yield group[::-1]

    async def seek(self, turn_id: str) -> Place | None:
        """The position where a turn, or an item that a client added, ends.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        before: int | None = None
        while True:
            search = Search(
                turn_id=turn_id, before=before, max_messages=SCAN_MESSAGES, max_bytes=SCAN_BYTES
            )
            run = scripts.seek(self._conversation_id, self._tenant, search)
            found = await self._store.step(self._tenant, run)
            if not isinstance(found, SearchOn):
                return found
            before = found.before

    async def measure(self, last: int, most: int) -> int:
        """Bytes of the messages up to a position, with their images and files.

        Args:
            last: The last position.
            most: Bytes after which counting stops.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        at = size = 0
        while at <= last and size <= most:
            reading = Reading(first=at, last=last, max_bytes=SCAN_BYTES)
            run = scripts.measure(self._conversation_id, self._tenant, reading)
            measured = await self._store.step(self._tenant, run)
            if measured is None or measured.end == at:
                break
            at = measured.end
            size += measured.size
        return size


def _begins(message: Message, before: Message) -> bool:
    """Whether a message begins a group: a turn, or a user's message outside of turns."""
    if message.turn_id != before.turn_id:
        return True
    return message.turn_id is None and isinstance(message, UserMessage)
