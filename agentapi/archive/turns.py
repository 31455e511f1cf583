"""The archive's protocol for ended turns; see docs/guides/archive.md.

A turn whose record is in the archive has an entry in a list in Redis, and its newest copy is its
record. All other copies are invalid, and a process that finds one deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedTurn:
    """A copy of a turn that has ended. Times are milliseconds since 1970.

    Attributes:
        turn_id: Its id.
        version: Identifies this copy; newer copies have larger numbers.
        conversation_id: The conversation that it belongs to.
        user_id: The user that it belongs to; "" for none.
        tenant_id: The tenant that it belongs to; "" for none.
        agent: The agent that it was enqueued for.
        kind: What kind of turn it is.
        status: How it ended.
        attempt: How many times it was claimed.
        steps: Number of model responses and tool results.
        worker: The worker that claimed it last.
        parent_id: The turn that waited for its reply.
        cancel_requested: Whether its cancellation was requested.
        created: When it was accepted.
        started: When it was first claimed.
        ended: When it ended.
        archived: When it was copied, by Redis's clock.
        expires: When its retention ends.
        input_tokens: Tokens that its models read.
        output_tokens: Tokens that its models wrote.
        cached_tokens: How many of the input tokens were cached.
        cost: Cost in the currency of the price table.
        metadata: Its producer's metadata, as JSON.
        fields: Its record by the field names in Redis, including its messages.
    """

    turn_id: str
    version: int
    conversation_id: str
    user_id: str = ""
    tenant_id: str = ""
    agent: str = ""
    kind: str = "agent"
    status: str = "completed"
    attempt: int = 0
    steps: int = 0
    worker: str | None = None
    parent_id: str | None = None
    cancel_requested: bool = False
    created: int
    started: int | None = None
    ended: int
    archived: int
    expires: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    metadata: str = "{}"
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnFilter:
    """Which turns to list. Times are milliseconds since 1970; None matches every turn.

    Attributes:
        statuses: How the turn ended.
        agent: The agent that it was enqueued for.
        tenant_id: The tenant; "" for turns without one.
        user_id: The user; "" for turns without one.
        conversation_id: The conversation.
        since: Accepted at this time or later.
        until: Accepted at this time or earlier.
        behind: Of the turns of the time `until`, only those with a smaller id; "" for all of them.
    """

    statuses: frozenset[str]
    agent: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    conversation_id: str | None = None
    since: int | None = None
    until: int | None = None
    behind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundTurns:
    """A part of a list.

    Attributes:
        turns: Newest copies of the turns that match, newest first, without their fields.
        reached: All that were accepted at this time or later are there; None if all are.
        looked_at: About how many were looked at.
    """

    turns: Sequence[ArchivedTurn]
    reached: int | None
    looked_at: int


class TurnArchive(Protocol):
    """The part of an archive that holds turns. Safe to share between threads; see `Archive`."""

    def put_turns(self, turns: Sequence[ArchivedTurn]) -> frozenset[tuple[str, int]]:
        """Store copies in one transaction. A copy whose id and version exist already is not stored
        again.

        Returns:
            Id and version of each copy that is the newest of its turn.
        """
        ...

    def turns_of(self, turn_ids: Sequence[str], *, whole: bool = True) -> Sequence[ArchivedTurn]:
        """Read the newest copy of each turn that has a copy.

        Args:
            turn_ids: At most a few thousand.
            whole: Whether to read their fields too.
        """
        ...

    def find_turns(self, wanted: TurnFilter, limit: int) -> FoundTurns:
        """The newest turns that match. It looks at a bounded number, so there may be fewer than
        asked for, or none, although more follow.

        Args:
            wanted: Which turns.
            limit: How many are enough; more come if they were accepted in the same millisecond.
        """
        ...

    def turn_page(
        self,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        conversation_id: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> Sequence[ArchivedTurn]:
        """Newest copies of some turns of a user or tenant, without their fields, by id.

        Args:
            user_id: The user; "" for those without one, None for any.
            tenant_id: The tenant; "" for those without one, None for any.
            conversation_id: The conversation; None for any.
            after: The id after which to continue.
            limit: Maximum number of turns.
        """
        ...

    def delete_turns(self, copies: Sequence[tuple[str, int]]) -> int:
        """Delete copies, at most a few hundred, by id and version. Returns how many existed."""
        ...

    def delete_turns_of(self, *, user_id: str | None = None, tenant_id: str | None = None) -> int:
        """Delete all copies of a user's or tenant's turns in batches; arguments as for `turn_page`.
        Returns the number of deleted copies."""
        ...

    def expired_turns(self, now: int, limit: int = 500) -> Sequence[tuple[str, int, int]]:
        """Some of the copies whose retention has ended.

        Args:
            now: Milliseconds since 1970.
            limit: How many at most.

        Returns:
            Id, version, and when the turn was accepted.
        """
        ...
