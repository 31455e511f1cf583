"""Lists of turns and conversations, and the ends of turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from agentapi.stores.missing import Missing
from agentapi.turns import PendingCall, TurnError, TurnKind, TurnStatus

MAX_PAGE: Final = 1000
"""Maximum entries of a page."""

FROM_START: Final = "start"
"""The position before the oldest stored end."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnQuery:
    """Which turns to list; a field that is not given matches every turn.

    Attributes:
        statuses: The turn has one of these.
        agent: The agent that the turn was enqueued for.
        tenant_id: The tenant; "" for turns without one.
        user_id: The user; "" for turns without one.
        conversation_id: The conversation.
        error_code: The turn failed with this code.
        error: The turn failed, and its error code or text contains this, ignoring case.
        since: Accepted at this time or later, in seconds since 1970.
        until: Accepted at this time or earlier.
        asks: Only unfinished turns that have requested decisions about tool calls.
    """

    statuses: frozenset[TurnStatus] = frozenset(TurnStatus)
    agent: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    conversation_id: str | None = None
    error_code: str | None = None
    error: str | None = None
    since: float | None = None
    until: float | None = None
    asks: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationQuery:
    """Which conversations to list; a field that is not given matches every conversation.

    Attributes:
        agent: The agent that its newest turn was enqueued for.
        tenant_id: The tenant; "" for conversations without one.
        user_id: The user; "" for conversations without one.
        busy: Whether it has turns that have not ended.
        since: Created at this time or later, in seconds since 1970.
        until: Created at this time or earlier.
        active_since: Changed at this time or later.
        idle_since: Not changed after this time.
    """

    agent: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    busy: bool | None = None
    since: float | None = None
    until: float | None = None
    active_since: float | None = None
    idle_since: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnSummary:
    """A turn in a list, without its messages. Times are seconds since 1970.

    Attributes:
        attempt: How many times it was claimed; 0 while it waits for its first worker.
        steps: Number of model responses and tool results so far.
        worker: The worker that claimed it last.
        wakes_at: While it is parked: when it continues, unless something wakes it earlier.
        cancel_requested: Whether its cancellation was requested.
        parent_id: The turn that waits for this one's reply.
        error: Why it failed, once failed.
    """

    turn_id: str
    conversation_id: str
    agent: str
    status: TurnStatus
    created_at: float
    kind: TurnKind = TurnKind.AGENT
    user_id: str | None = None
    tenant_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    wakes_at: float | None = None
    attempt: int = 0
    steps: int = 0
    worker: str | None = None
    cancel_requested: bool = False
    parent_id: str | None = None
    error: TurnError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationSummary:
    """A conversation in a list. Times are seconds since 1970.

    Attributes:
        agent: The agent that its newest turn was enqueued for; None if no turn was.
        updated_at: When it was last changed.
        turns: Number of turns that have ended.
        open_turns: Number of turns that have not ended.
        messages: How many messages its history has.
        tokens: Tokens that its turns used since its history began.
        cost: Their cost, in the unit of the setting `prices`.
        metadata: Its creator's own labels.
        archived: Whether its history is in the archive.
    """

    conversation_id: str
    created_at: float
    updated_at: float
    agent: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    turns: int = 0
    open_turns: int = 0
    messages: int = 0
    tokens: int = 0
    cost: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    archived: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Paged(Generic[T]):
    """A page of a list.

    Attributes:
        items: The entries, newest first. There may be fewer than requested, or none, even if more
            pages follow, because each page examines a bounded number of entries.
        cursor: Where the next page begins; None after the last one.
        missing: The part of a cluster that did not answer and is missing on this page; None if all
            shards answered. Later pages do not include it either.
    """

    items: Sequence[T]
    cursor: str | None
    missing: Missing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnCount:
    """Turns that were accepted in a period, with their current state.

    Attributes:
        accepted: How many are still stored.
        failed: How many of them have failed.
    """

    accepted: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnEnd:
    """The end of a turn, without its messages.

    Attributes:
        id: Identifies this end. It never changes. A turn that is retried ends again with another
            id.
        position: Where to continue after this end.
        turn_id: The turn.
        status: How it ended.
        ended_at: Seconds since 1970.
        error_code: The code of its error, if it failed.
    """

    id: str
    position: str
    turn_id: str
    conversation_id: str
    agent: str
    status: TurnStatus
    ended_at: float
    user_id: str | None = None
    tenant_id: str | None = None
    error_code: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Ends of turns that were read together.

    Attributes:
        ends: The ends; those of one conversation are in order.
        position: Where to continue after all of them.
        missing: The part of a cluster that did not answer; None if all shards answered. Its ends
            are returned when it is back, because the position stays before them.
    """

    ends: Sequence[TurnEnd]
    position: str
    missing: Missing | None = None


class ListStore(Protocol):
    """Lists turns and conversations, newest first, and follows the ends of turns.

    An entry's place never changes. An entry that exists while all pages are read is on exactly one
    of them. Turns and conversations of a release without lists are absent.
    """

    def turns(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[TurnSummary]:
        """A page of turns, newest first.

        Args:
            query: Which turns.
            limit: Maximum turns on the page, at most `MAX_PAGE`.
            cursor: From the previous page; None for the first page.
            partial: Whether to accept a page without the data of cluster shards that do not answer;
                `Paged.missing` reports them.

        Raises:
            InvalidInput: The limit or the cursor is not valid.
            StoreUnavailable: Redis is out of reach; on a cluster also if one shard is, unless
                `partial` is set.
        """
        ...

    def conversations(
        self,
        query: ConversationQuery,
        limit: int,
        cursor: str | None = None,
        *,
        partial: bool = False,
    ) -> Paged[ConversationSummary]:
        """A page of conversations, newest first; raises like `turns`."""
        ...

    def approvals(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[PendingCall]:
        """A page of tool calls that wait for a decision; raises like `turns`.

        Args:
            query: Turns whose calls to list.
            limit: Maximum turns whose calls are on the page.
            cursor: From the previous page; None for the first page.
            partial: See `turns`.
        """
        ...

    def counts(self, times: Sequence[float]) -> Sequence[TurnCount]:
        """How many turns were accepted between each time and the next.

        Turns on shards of a cluster that do not answer are not counted; `StoreUnavailable` is
        raised if none answers.

        Args:
            times: In seconds since 1970, in ascending order.

        Returns:
            One count fewer than there are times.
        """
        ...

    def ends(self, after: str | float | None, limit: int, timeout: float = 0) -> Ends:
        """Ends of turns after a position; waits for the first of them.

        Args:
            after: A position, `FROM_START`, or a time in seconds since 1970; None for now.
            limit: Approximate maximum; there may be up to twice as many.
            timeout: Maximum wait in seconds; 0 does not wait.

        Raises:
            InvalidInput: The position is not valid.
            StoreUnavailable: Redis is out of reach; on a cluster, all shards are, or one shard is
                and there is no position yet.
        """
        ...
