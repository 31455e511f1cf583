"""Operations on conversations outside of turns: open, label, read, copy and delete."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from agentapi.conversation.messages import Message, dumps

END: Final = 2**53
"""A position after every message."""

WIPE_MESSAGES: Final = 200
WIPE_BYTES: Final = 1_048_576
"""Maximum messages, and their bytes, that one step of `wipe` deletes. Redis is blocked
meanwhile."""

LEFT_TTL: Final = 3600.0
"""Seconds after which a dropped conversation's keys expire if they are not wiped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenConversation:
    """A request to create, label or extend a conversation.

    Attributes:
        create: Whether to create it when it does not exist.
        user_id: The user that a new conversation begins with.
        metadata: Its new metadata; unchanged when not given.
        idle_time: Seconds of inactivity after which it is deleted; unchanged when not given.
        operation: Identifies this call; a repeat with the same value appends nothing.
        messages: Messages to append.
    """

    conversation_id: str
    tenant_id: str | None
    create: bool
    user_id: str | None = None
    metadata: Mapping[str, str] | None = None
    idle_time: float | None = None
    operation: str = ""
    messages: Sequence[Message] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationRecord:
    """A conversation that exists.

    Attributes:
        created_at: Seconds since 1970.
        metadata: Its creator's own labels.
    """

    created_at: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMessage:
    """A message of a history.

    Attributes:
        position: Its place, counted from 0.
        raw: The message as it is stored.
    """

    position: int
    raw: bytes
    message: Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Which messages to read.

    Attributes:
        first: The first position.
        last: The last position.
        up: Whether to read forwards from the first position, or backwards from the last.
        max_bytes: Bytes after which reading stops; at least one message is read.
    """

    first: int = 0
    last: int = END
    up: bool = True
    max_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Messages in reading order, and the number of messages in the whole history."""

    total: int
    messages: Sequence[StoredMessage]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a turn ends in a history.

    Attributes:
        position: The position of its newest message.
        digest: SHA-1 of that message as it is stored.
    """

    position: int
    digest: str


def digest_of(message: Message) -> str:
    """SHA-1 of a message as it is stored."""
    return hashlib.sha1(dumps(message), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A step of a search for a turn's newest message, from the end of the history back.

    Attributes:
        before: The position before which to search; the end when None.
        max_messages: Messages after which the step ends.
        max_bytes: Bytes after which it ends.
    """

    turn_id: str
    before: int | None = None
    max_messages: int
    max_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOn:
    """The step ended without a result: continue before this position."""

    before: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Bytes of a part of a history, and the position after its last message."""

    end: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A deleted conversation, and the key of its remaining data."""

    conversation_id: str
    left: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unended:
    """Turns that have not ended, oldest first, so that nothing was deleted."""

    turn_ids: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgottenTurn:
    """A turn that was deleted.

    Attributes:
        accepted_at: Seconds since 1970.
        input_bytes: Size of its message.
    """

    accepted_at: float
    input_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wiped:
    """What one step of `wipe` deleted, and how many messages are left."""

    left: int
    turns: Sequence[ForgottenTurn]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fork:
    """A copy of the beginning of a history, which is made step by step.

    Attributes:
        source: The conversation to copy from.
        copy: The new conversation, in the same partition.
        place: The last message to copy.
        idle_time: Seconds of inactivity after which the copy is deleted.
        step_bytes: Bytes after which a step ends.
    """

    source: str
    copy: str
    tenant_id: str | None
    user_id: str | None
    place: Place
    idle_time: float
    step_bytes: int


class ConversationStore(Protocol):
    """Changes and reads conversations, for programs that manage them, such as the gateway.

    A conversation belongs to the tenant that created it; for all other tenants it does not exist.
    Each change is one atomic transition, and a repeat with the same operation name has no further
    effect.
    """

    def open(self, opening: OpenConversation) -> ConversationRecord | None:
        """Create, label or extend a conversation.

        Returns:
            The conversation; None when it does not exist, or belongs to another tenant.
        """
        ...

    def find(self, conversation_id: str, tenant_id: str | None) -> ConversationRecord | None:
        """A conversation; None when it does not exist, or belongs to another tenant."""
        ...

    def remove(
        self, conversation_id: str, tenant_id: str | None, message: StoredMessage, operation: str
    ) -> bool:
        """Remove a message from a history; returns whether it was still at the position where it
        was read."""
        ...

    def drop(
        self,
        conversation_id: str,
        tenant_id: str | None,
        operation: str,
        *,
        expected: int | None = None,
    ) -> Dropped | Unended | None:
        """Delete a conversation. It disappears immediately; `wipe` deletes its remaining data.

        Args:
            conversation_id: The conversation.
            tenant_id: The tenant that it must belong to.
            operation: Identifies this call; a repeat finds the remaining data until it is wiped.
            expected: How many messages it must have; any number when not given.

        Returns:
            Its remaining data; or its unfinished turns, in which case nothing was deleted; or None
            if it does not exist, belongs to another tenant, or has another number of messages.
        """
        ...

    def wipe(self, dropped: Dropped, step: str) -> Wiped:
        """Delete some of a dropped conversation's messages, and the turns that they name.

        Args:
            dropped: The remaining data.
            step: Identifies this step; a repeat returns the first answer.
        """
        ...

    def forget(
        self, conversation_id: str, turn_id: str, operation: str
    ) -> ForgottenTurn | Unended | None:
        """Delete a turn of a conversation.

        Returns:
            What was deleted; or the turn, if it has not ended and was kept; or None if it does not
            exist, or belongs to another conversation.
        """
        ...

    def relabel(
        self,
        conversation_id: str,
        turn_id: str,
        metadata: Mapping[str, Any],
        operation: str,
        *,
        part: int = 0,
    ) -> bool:
        """Change the metadata of a turn that has ended.

        Args:
            conversation_id: Its conversation.
            turn_id: The turn.
            metadata: Its new metadata, which replaces the old.
            operation: Identifies this call; a repeat with the same value changes nothing.
            part: Number of a request that continued the turn, to change the metadata of that
                request.

        Returns:
            Whether there is such a turn or part in the conversation, and the turn has ended.
        """
        ...

    def continue_from(
        self, conversation_id: str, turn_id: str, operation: str, *, take: bool
    ) -> bool:
        """Check whether a new turn may follow a given turn in the same conversation, instead of in
        a copy.

        Args:
            conversation_id: The conversation of both.
            turn_id: The turn to continue.
            operation: Identifies the new turn; a repeat with the same value gets the same answer.
            take: Whether to reserve the place, so that no other turn can take it.
        """
        ...

    def fork(self, fork: Fork, copied: int) -> int | None:
        """Copy a part of a history.

        Args:
            fork: The copy to make.
            copied: How many messages the copy has, according to the caller.

        Returns:
            How many it has now; None if the source has changed, or the copy belongs to another
            tenant.
        """
        ...

    def page(self, conversation_id: str, tenant_id: str | None, reading: Reading) -> Page | None:
        """Read a part of a history; None if the conversation does not exist for the tenant."""
        ...

    def seek(
        self, conversation_id: str, tenant_id: str | None, search: Search
    ) -> Place | SearchOn | None:
        """Search for a turn's newest message; None when the history has none."""
        ...

    def measure(
        self, conversation_id: str, tenant_id: str | None, reading: Reading
    ) -> Measured | None:
        """Add up the bytes of messages, including images and files, from the first position.

        Returns:
            None when the conversation does not exist for the tenant.
        """
        ...
