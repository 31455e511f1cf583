"""A history in this process, for scripts, tests and eager mode."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agentapi.conversation.messages import Message, UserMessage, to_dict
from agentapi.conversation.window import Window
from agentapi.ids import check_conversation_id, create_conversation_id

_NO_BLOBS: Final[Mapping[str, bytes]] = {}


class InMemoryMemory:
    """A conversation that ends with the process. Workers refuse it, because other workers could not
    see it."""

    def __init__(
        self,
        *,
        conversation_id: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
    ) -> None:
        """Start an empty conversation.

        Args:
            conversation_id: Its id; a new UUID when not given.
            user_id: The user, for tools (`ToolContext`).
            tenant_id: The tenant, for tools (`ToolContext`).

        Raises:
            InvalidConversationId: The id is empty, too long or has control characters.
        """
        self.conversation_id = (
            create_conversation_id()
            if conversation_id is None
            else check_conversation_id(conversation_id)
        )
        self.user_id = user_id
        self.tenant_id = tenant_id
        self._messages: list[Message] = []
        self._blobs: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"InMemoryMemory(conversation_id={self.conversation_id!r})"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages as plain dicts with `role` and `content`, oldest first."""
        with self._lock:
            return [to_dict(message) for message in self._messages]

    def load(self, window: Window) -> Sequence[Message]:
        """Return all messages. Reading them costs nothing, so the caller applies the window."""
        with self._lock:
            return tuple(self._messages)

    def append(self, messages: Sequence[Message], blobs: Mapping[str, bytes] = _NO_BLOBS) -> None:
        """Append the messages of one turn atomically, with the bytes of their attachments."""
        with self._lock:
            self._messages.extend(messages)
            self._blobs.update(blobs)

    def keep(self, blobs: Mapping[str, bytes]) -> None:
        """Store bytes of attachments for future messages."""
        with self._lock:
            self._blobs.update(blobs)

    def blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        """Load bytes of attachments by name; missing ones are left out."""
        with self._lock:
            return {name: self._blobs[name] for name in names if name in self._blobs}

    def blobs_in_use(self) -> set[str]:
        """Names of the bytes that a message refers to."""
        with self._lock:
            said = [m for m in self._messages if isinstance(m, UserMessage)]
            return {a.blob for message in said for a in message.attachments if a.blob}

    def discard(self, names: Iterable[str]) -> None:
        """Delete bytes of attachments."""
        with self._lock:
            for name in names:
                self._blobs.pop(name, None)

    def remove(self, position: int) -> None:
        """Take one message out; positions count from 0."""
        with self._lock:
            del self._messages[position]

    def reset(self) -> None:
        """Delete all messages."""
        with self._lock:
            self._messages.clear()
            self._blobs.clear()
