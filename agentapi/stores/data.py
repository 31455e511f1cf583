"""The data of a person or tenant: found, deleted, copied out and brought back."""

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
    """A name for the deletion of a conversation that `DataStore.remains` finds again."""
    return f"{FORGET}{uuid.uuid4().hex}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Whose data are meant; None means anybody's.

    Attributes:
        user_id: The user; "" for data of no user.
        tenant_id: The tenant; "" for data of no tenant.
    """

    user_id: str | None = None
    tenant_id: str | None = None

    def fits(self, user_id: str, tenant_id: str) -> bool:
        """Whether data of this user and tenant are meant."""
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
        last: Its last message, as it is stored; empty without one.
        imported: What `DataStore.restore` has called its content; empty if nobody imported it.
        fields: What is known of it, by the names of its record: text, all of it.
    """

    conversation_id: str
    generation: int
    messages: int
    last: bytes
    imported: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Staging:
    """A conversation that is brought in, message by message, and that nobody sees yet.

    Attributes:
        conversation_id: The conversation.
        operation: Names this attempt.
    """

    conversation_id: str
    operation: str


class Restored(StrEnum):
    """What became of a conversation that was brought in."""

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
    """For backups, and for the deletion of a person's data.

    A search goes through all keys, so it also finds what is in no list. It may miss what is
    written while it runs.
    """

    def conversations(self, whose: Whose) -> Iterator[OwnedConversation]:
        """Conversations that somebody has begun. One may come twice."""
        ...

    def turns(self, whose: Whose, within: Collection[str] = ()) -> Iterator[OwnedTurn]:
        """Turns that somebody has enqueued, and everybody's turns in some conversations. One may
        come twice.

        Args:
            whose: Who has enqueued them.
            within: The ids of these conversations.
        """
        ...

    def require_archive(self) -> None:
        """Check that this process reaches everything that is stored.

        Raises:
            ArchiveUnavailable: Conversations or turns are in the archive, and this process has
                none.
        """
        ...

    def remains(self) -> Iterator[Dropped]:
        """Conversations that were dropped with an operation named by `forget_operation`, and whose
        remains have not been wiped completely."""
        ...

    def erase(self, turn: OwnedTurn, operation: str) -> int | None:
        """Delete a turn that has ended, with its messages in the history.

        Args:
            turn: The turn.
            operation: Names this call; a repeat answers as the first call did.

        Returns:
            How many messages were deleted; None if the turn has not ended. 0 if it is gone.
        """
        ...

    def erase_ends(self, whose: Whose) -> int:
        """Delete what is kept of ends for those who follow them; returns how many."""
        ...

    def erase_copies(self, whose: Whose) -> int:
        """Delete what the archive has of conversations that are not there any more: call it after
        they were dropped. Returns how many copies."""
        ...

    def snapshot(self, conversation_id: str) -> Snapshot | None:
        """A conversation as it is now, or None. One that is in the archive stays there."""
        ...

    def raw(self, conversation_id: str, start: int, stop: int) -> Sequence[bytes]:
        """Messages as they are stored, by position; `stop` is included."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """In its body an archived conversation is read once, and kept in memory until the next one
        is read: for those who read one piece after the other."""
        ...

    def stage(
        self,
        staging: Staging,
        position: int,
        messages: Sequence[bytes],
        blobs: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Add messages to what is brought in, and bytes of images and files.

        Args:
            staging: The attempt.
            position: How many messages were staged before; a repeat adds nothing.
            messages: The messages, as they are to be stored.
            blobs: Bytes by their names.

        Returns:
            Whether they are there now; not if earlier ones have expired.
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
        """Make a conversation of what was staged, in one step.

        Args:
            staging: The attempt; a repeat answers as the first call did.
            fields: As in `Snapshot`.
            messages: How many messages it must have.
            digest: Names the content: the same content is not imported twice.
            replace: Whether it may take the place of a conversation whose turns have all ended.
        """
        ...


def fields_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Those fields of a record that are copied."""
    return {
        name: str(value)
        for name, value in record.items()
        if name in FIELDS or name.startswith(ACTIVE)
    }
