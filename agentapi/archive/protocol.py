"""The protocol of an archive; see docs/guides/archive.md.

Redis knows where a conversation is. An archived conversation leaves a marker in Redis, which names
a *version*: the row of the archive that holds its content. A row that no marker names is invalid:
it was left by a process that died between two steps, and the sweep deletes it. Therefore an archive
needs no locks, and no transactions that span two calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentapi.archive.turns import TurnArchive


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedRow:
    """A conversation in the archive, without its content. Times are milliseconds since 1970.

    Attributes:
        conversation_id: Its id, at most 512 characters.
        version: Identifies this copy: 32 hexadecimal digits. The key is the conversation's id and
            the version.
        user_id: The user that it belongs to; "" for none.
        tenant_id: The tenant that it belongs to; "" for none.
        generation: Changes when the history is reset.
        epoch: The epoch of its last turn; 0 if it had none.
        created: When it was created.
        updated: When something last happened in it.
        archived: When it was copied, by Redis's clock.
        expires: When its idle time ends; None if it never expires.
        messages: Number of messages.
    """

    conversation_id: str
    version: str
    user_id: str
    tenant_id: str
    generation: int
    epoch: int
    created: int
    updated: int
    archived: int
    expires: int | None
    messages: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedConversation:
    """A conversation with its content.

    Attributes:
        row: Its metadata; `row.messages` is the number of `messages`.
        fields: Its record as text, by the field names in Redis (such as
            `agentapi.stores.data.FIELDS`). It includes the summary, as "summary" and "covered".
        messages: The messages as Redis stores them: one JSON object each in UTF-8, oldest first.
            They are returned byte for byte.
        blobs: Bytes of images and files, by their SHA-256.
    """

    row: ArchivedRow
    fields: Mapping[str, str] = field(default_factory=dict)
    messages: Sequence[bytes] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveCount:
    """Counts of archived data."""

    conversations: int
    messages: int


class Archive(TurnArchive, Protocol):
    """A database that holds conversations and turns. Safe to share between threads.

    Each method is one transaction, and may be repeated. Each raises `ArchiveUnavailable` when the
    database cannot be reached, refuses the login, or does not answer within a few seconds; the text
    never contains the password.
    """

    def prepare(self) -> None:
        """Create or migrate the tables, unless they are those of this release. Several processes
        may do so at the same time.

        Raises:
            ConfigurationError: The tables are of a newer release that this one cannot read.
        """
        ...

    def put(self, conversation: ArchivedConversation) -> None:
        """Store a copy of a conversation. If a copy with the same id and version exists, nothing
        happens. Other versions stay."""
        ...

    def get(self, conversation_id: str, version: str) -> ArchivedConversation | None:
        """Read a copy; None if there is none."""
        ...

    def delete(self, conversation_id: str, version: str) -> bool:
        """Delete a copy. Returns whether there was one."""
        ...

    def delete_of(
        self, *, user_id: str | None = None, tenant_id: str | None = None
    ) -> ArchiveCount:
        """Delete all copies of a user, of a tenant, or of a user within a tenant, in pieces.

        Args:
            user_id: The user; "" for those without one, None for any.
            tenant_id: The tenant; "" for those without one, None for any.

        Returns:
            What was deleted.
        """
        ...

    def count(self, *, user_id: str | None = None, tenant_id: str | None = None) -> ArchiveCount:
        """Count copies; arguments as for `delete_of`."""
        ...

    def page(
        self,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> Sequence[ArchivedRow]:
        """A page of the copies, ordered by conversation id and version; other arguments as for
        `delete_of`.

        Args:
            after: Id and version of the copy after which to continue.
            limit: Maximum number of copies.
        """
        ...

    def expired(
        self, now: int, *, after: tuple[int, str, str] | None = None, limit: int = 100
    ) -> Sequence[ArchivedRow]:
        """Copies whose idle time has ended, ordered by `expires`, id and version.

        Args:
            now: Milliseconds since 1970.
            after: `expires`, id and version of the copy after which to continue.
            limit: Maximum number of copies.
        """
        ...

    def close(self) -> None:
        """Give back all connections."""
        ...
