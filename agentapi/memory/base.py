"""What a memory is: one conversation's history, by four methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agentapi.conversation.messages import Message
from agentapi.conversation.window import Window


class Memory(Protocol):
    """The history of one conversation."""

    @property
    def conversation_id(self) -> str:
        """The conversation."""
        ...

    @property
    def user_id(self) -> str | None:
        """The user it began with, if any."""
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
        """The newest messages: no fewer than the window needs."""
        ...

    def append(self, messages: Sequence[Message], blobs: Mapping[str, bytes] = ...) -> None:
        """Add the messages of one turn, all together, with the bytes of their attachments."""
        ...

    def blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        """Bytes of attachments by their names; those that are there."""
        ...

    def reset(self) -> None:
        """Forget all messages."""
        ...
