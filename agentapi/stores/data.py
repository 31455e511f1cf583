"""The data of a user or tenant: search, deletion, export and import."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from agentapi.stores.conversations import Dropped

STAGED_TTL: Final = 3600.0
"""Seconds after which the staged data of an incomplete import expires."""


FORGET: Final = "forget-"


def forget_operation() -> str:
    """An operation name for the deletion of a conversation, by which `DataStore.remains` finds it
    again."""
    return f"{FORGET}{uuid.uuid4().hex}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """The owner of the data; None means any owner.

    Attributes:
        user_id: The user; "" for data of no user.
        tenant_id: The tenant; "" for data of no tenant.
    """

    user_id: str | None = None
    tenant_id: str | None = None

    def fits(self, user_id: str, tenant_id: str) -> bool:
        """Whether data of this user and tenant match."""
        return self.user_id in (None, user_id) and self.tenant_id in (None, tenant_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnedConversation:
    """A conversation, and the tenant that it belongs to, or None."""

    conversation_id: str
    tenant_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnedTurn:
    """A turn, the conversation that it belongs to, and whether it has ended."""

    turn_id: str
    conversation_id: str
    ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A conversation at one moment, without its messages.

    Attributes:
        conversation_id: Its id.
        generation: Changes when the history is reset.
        messages: How many messages it has.
        last: Its last message as it is stored; empty if there is none.
        imported: The digest of its content from `DataStore.restore`; empty if it was not imported.
        fields: The fields of its record, as text.
    """

    conversation_id: str
    generation: int
    messages: int
    last: bytes
    imported: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Staging:
    """A conversation that is being imported, message by message, and is not visible yet.

    Attributes:
        conversation_id: The conversation.
        operation: Identifies this attempt.
    """

    conversation_id: str
    operation: str


class Restored(StrEnum):
    """The result of importing a conversation."""

    IMPORTED = "imported"
    KNOWN = "known"
    """The same conversation has been imported before."""
    EXISTS = "exists"
    """A conversation with this id exists, and replacing it was not requested."""
    BUSY = "busy"
    """It has turns that have not ended, so it was not replaced."""
    TENANT = "tenant"
    """It belongs to another tenant."""
    LOST = "lost"
    """The staged data is not complete."""


FIELDS: Final = (
    "created",
    "updated",
    "user",
    "tenant",
    "agent",
    "ttl",
    "metadata",
    "turns",
    "steps",
    "tokens",
    "cost",
    "summary",
    "covered",
    "calibration",
    "contexts",
)
"""Fields of a conversation's record that are copied, in addition to `ACTIVE` fields."""

ACTIVE: Final = "active:"
"""Prefix of a field that names the agent that answers in place of another one."""


class DataStore(Protocol):
    """The part of the store for backups and for the deletion of a user's data.

    A search scans all keys, so it also finds data that is in no list. It may miss data that is
    written while it runs.
    """

    def conversations(self, whose: Whose) -> Iterator[OwnedConversation]:
        """Conversations that the owner began. One may be returned twice."""
        ...

    def turns(self, whose: Whose, within: Collection[str] = ()) -> Iterator[OwnedTurn]:
        """Turns that the owner enqueued, and all turns in some conversations. One may be returned
        twice.

        Args:
            whose: The owner who enqueued them.
            within: The ids of these conversations.
        """
        ...

    def require_archive(self) -> None:
        """Check that this process can reach all stored data.

        Raises:
            ArchiveUnavailable: Conversations or turns are in the archive, but this process has no
                archive.
        """
        ...

    def remains(self) -> Iterator[Dropped]:
        """Conversations that were dropped with an operation named by `forget_operation` and have
        not been wiped completely."""
        ...

    def erase(self, turn: OwnedTurn, operation: str) -> int | None:
        """Delete a turn that has ended, with its messages in the history.

        Args:
            turn: The turn.
            operation: Identifies this call; a repeat returns the first answer.

        Returns:
            How many messages were deleted; None if the turn has not ended. 0 if it is gone.
        """
        ...

    def erase_ends(self, whose: Whose) -> int:
        """Delete stored ends of turns; returns how many."""
        ...

    def erase_copies(self, whose: Whose) -> int:
        """Delete archived copies of conversations that no longer exist: call it after dropping
        them. Returns the number of copies."""
        ...

    def snapshot(self, conversation_id: str) -> Snapshot | None:
        """The current state of a conversation, or None. An archived conversation stays in the
        archive."""
        ...

    def raw(self, conversation_id: str, start: int, stop: int) -> Sequence[bytes]:
        """Messages as they are stored, by position; `stop` is inclusive."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """A context manager in whose body an archived conversation is read once and kept in memory
        until the next one is read, for callers that read it part by part."""
        ...

    def stage(
        self,
        staging: Staging,
        position: int,
        messages: Sequence[bytes],
        blobs: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Add messages, and bytes of images and files, to the import.

        Args:
            staging: The attempt.
            position: How many messages are already staged; a repeat adds nothing.
            messages: The messages, in stored form.
            blobs: Bytes by their names.

        Returns:
            Whether they are staged now; false if earlier ones have expired.
        """
        ...

    def restore(
        self,
        staging: Staging,
        fields: Mapping[str, str],
        *,
        messages: int,
        digest: str,
        replace: bool,
    ) -> Restored:
        """Turn the staged data into a conversation, in one step.

        Args:
            staging: The attempt; a repeat returns the first answer.
            fields: As in `Snapshot`.
            messages: How many messages it must have.
            digest: Identifies the content: the same content is not imported twice.
            replace: Whether it may replace a conversation whose turns have all ended.
        """
        ...


def fields_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a record that are copied."""
    return {
        name: str(value)
        for name, value in record.items()
        if name in FIELDS or name.startswith(ACTIVE)
    }
