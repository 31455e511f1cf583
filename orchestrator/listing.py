"""Lists of turns, conversations and approvals, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final, Generic, TypedDict, TypeVar

from agentapi.decoding.shown import shown
from agentapi.errors import InvalidInput
from agentapi.ids import check_conversation_id
from agentapi.stores import ConversationQuery, Paged, TurnQuery
from agentapi.turns import TurnStatus

T = TypeVar("T")

PAGE: Final = 100
"""Default number of entries per page."""


class WhoseTurns(TypedDict, total=False):
    """Filters of `Orchestrator.approvals`.

    Attributes:
        agent: Name of the agent that the turn was enqueued for.
        tenant_id: The tenant; "" for turns without one.
        user_id: The user; "" for turns without one.
        conversation_id: The conversation.
        since: Accepted at this time or later: a `datetime` with a time zone, or seconds since 1970.
        until: Accepted at this time or earlier.
    """

    agent: str
    tenant_id: str
    user_id: str
    conversation_id: str
    since: float | datetime
    until: float | datetime


class TurnFilters(WhoseTurns, total=False):
    """Filters of `Orchestrator.turns`: those of `WhoseTurns`, and the turn's state.

    Attributes:
        status: The turn's status; one status, or several of which one must match.
        error_code: The turn failed with this code.
        error: The turn failed, and its code or error text contains this; case does not matter.
    """

    status: str | TurnStatus | Iterable[str | TurnStatus]
    error_code: str
    error: str


class ConversationFilters(TypedDict, total=False):
    """Filters of `Orchestrator.conversations`.

    Attributes:
        agent: Name of the agent that the newest turn was enqueued for.
        tenant_id: The tenant; "" for conversations without one.
        user_id: The user; "" for conversations without one.
        busy: Whether it has turns that have not ended.
        since: Created at this time or later: a `datetime` with a time zone, or seconds since 1970.
        until: Created at this time or earlier.
        active_since: Changed at this time or later.
        idle_since: Not changed after this time.
    """

    agent: str
    tenant_id: str
    user_id: str
    busy: bool
    since: float | datetime
    until: float | datetime
    active_since: float | datetime
    idle_since: float | datetime


_TURNS: Final = frozenset(TurnFilters.__annotations__)
_CONVERSATIONS: Final = frozenset(ConversationFilters.__annotations__)
_TIMES: Final = frozenset({"since", "until", "active_since", "idle_since"})


def turn_query(filters: TurnFilters | WhoseTurns) -> TurnQuery:
    """Check the filters of a list of turns.

    Raises:
        InvalidInput: A filter is unknown or not valid.
    """
    given = checked(dict(filters), _TURNS)
    status = given.pop("status", None)
    if "conversation_id" in given:
        check_conversation_id(given["conversation_id"])
    if status is not None:
        given["statuses"] = statuses_of(status)
    return TurnQuery(**given)


def conversation_query(filters: ConversationFilters) -> ConversationQuery:
    """Check the filters of a list of conversations. Raises the same errors as `turn_query`."""
    given = checked(dict(filters), _CONVERSATIONS)
    busy = given.get("busy")
    if busy is not None and not isinstance(busy, bool):
        raise InvalidInput(f"busy is {shown(busy)}: expected True or False")
    return ConversationQuery(**given)


def checked(filters: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The filters that are given, with times as seconds.

    Args:
        filters: Values by name; None for a filter that is not given.
        known: Names of the existing filters.

    Raises:
        InvalidInput: A filter is unknown, or has another type.
    """
    if unknown := sorted(set(filters) - known):
        raise InvalidInput(f"there is no filter {unknown[0]}: expected {', '.join(sorted(known))}")
    given = {name: value for name, value in filters.items() if value is not None}
    for name, value in given.items():
        if name in _TIMES:
            given[name] = seconds(name, value)
        elif name not in ("status", "busy") and not isinstance(value, str):
            raise InvalidInput(f"{name} is {shown(value)}: expected text")
    return given


def seconds(name: str, time: float | datetime) -> float:
    """Convert a time to seconds since 1970.

    Raises:
        InvalidInput: The value is not a time, or has no time zone.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise InvalidInput(
                f"{name} is a datetime without a time zone: use datetime.now(UTC), for example"
            )
        return time.timestamp()
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not abs(time) < 1e11:
        raise InvalidInput(f"{name} is {shown(time)}: expected seconds since 1970, or a datetime")
    return float(time)


def statuses_of(status: str | Iterable[str]) -> frozenset[TurnStatus]:
    """Convert one status or several to a set.

    Raises:
        InvalidInput: One of them is unknown.
    """
    try:
        names = [status] if isinstance(status, str) else list(status)
        return frozenset(map(TurnStatus, names))
    except (TypeError, ValueError):
        known = ", ".join(TurnStatus)
        raise InvalidInput(
            f"status is {shown(status)}: expected one or several of {known}"
        ) from None


class Listing(Generic[T]):
    """A list, newest first. Iterate over it for all entries, or read it page by page.

    An entry's place never changes. So an entry that exists during the whole iteration is found
    exactly once, no matter what is written in the meantime.
    """

    def __init__(self, read: Callable[[int, str | None, bool], Paged[T]]) -> None:
        self._read = read

    def page(
        self, limit: int = PAGE, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[T]:
        """One page.

        Args:
            limit: Maximum number of entries, 1 to 1000.
            cursor: The previous page's cursor; None for the first page.
            partial: Whether the page may omit entries on shards of a Redis Cluster that do not
                answer; its `missing` then says so.

        Returns:
            The page. It may be short or even empty although its cursor says that more entries
            follow, because one call examines about 10,000 entries at most.

        Raises:
            InvalidInput: The limit or the cursor is not valid.
            ConfigurationError: Lists are switched off.
            StoreUnavailable: Redis is out of reach; or a shard of a cluster is, and `partial` is
                false.
        """
        return self._read(limit, cursor, partial)

    def pages(self, limit: int = PAGE, *, partial: bool = False) -> Iterator[Paged[T]]:
        """All pages that have entries, or omit some. Raises the same errors as `page`."""
        cursor: str | None = None
        while True:
            found = self._read(limit, cursor, partial)
            if found.items or found.missing is not None:
                yield found
            cursor = found.cursor
            if cursor is None:
                return

    def __iter__(self) -> Iterator[T]:
        for found in self.pages():
            yield from found.items


class AsyncListing(Generic[T]):
    """A list for asyncio; see `Listing`."""

    def __init__(self, read: Callable[[int, str | None, bool], Awaitable[Paged[T]]]) -> None:
        self._read = read

    async def page(
        self, limit: int = PAGE, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[T]:
        """One page; see `Listing.page`."""
        return await self._read(limit, cursor, partial)

    async def pages(self, limit: int = PAGE, *, partial: bool = False) -> AsyncIterator[Paged[T]]:
        """All pages that have entries; see `Listing.pages`."""
        cursor: str | None = None
        while True:
            found = await self._read(limit, cursor, partial)
            if found.items or found.missing is not None:
                yield found
            cursor = found.cursor
            if cursor is None:
                return

    async def __aiter__(self) -> AsyncIterator[T]:
        async for found in self.pages():
            for item in found.items:
                yield item
