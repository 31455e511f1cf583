"""The memory protocol: the history of one conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window


class Memory(Protocol):
    """The history of one conversation."""

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        ...

    @property
    def user_id(self) -> str | None:
        """The user who started it, if known."""
        ...

    @property
    def tenant_id(self) -> str | None:
        """The tenant it belongs to, if any."""
        ...

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages as plain dicts with `role` and `content`, oldest first."""
        ...

    def load(self, window: Window) -> Sequence[Message]:
        """Load the newest messages, at least as many as the window needs."""
        ...

    def append(self, messages: Sequence[Message], blobs: Mapping[str, bytes] = ...) -> None:
        """Append the messages of one turn atomically, with the bytes of their attachments."""
        ...

    def blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        """Load bytes of attachments by name; missing ones are left out."""
        ...

    def reset(self) -> None:
        """Delete all messages."""
        ...
