"""Lists of turns and conversations in Redis, and the ends of turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import orjson
import redis
from typing_extensions import override

from agentapi.errors import StoreUnavailable
from agentapi.ids import PARTITIONS, partition_of
from agentapi.redis.archived import no_archive
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import list_keys, turn_keys
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.lists import (
    ConversationQuery,
    ConversationSummary,
    Ends,
    ListStore,
    Paged,
    TurnCount,
    TurnQuery,
    TurnSummary,
)
from agentapi.stores.merging import Look, Match, Piece, Place, page_of
from agentapi.stores.missing import Missing
from agentapi.stores.redis.archived_lists import ARCHIVE, ArchivedLists, ArchivedPage, if_wanted
from agentapi.stores.redis.calls_codec import pending_calls
from agentapi.stores.redis.ends import EndsReader
from agentapi.stores.redis.lists_codec import (
    archived_summary,
    conversation_summary,
    turn_if_here,
)
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.turn_archiving import MOVED_LISTS, RedisTurnArchiving
from agentapi.stores.redis.values import moment
from agentapi.stores.refusals import lists_are_off, not_complete
from agentapi.turns import PendingCall, TurnStatus
from agentapi.turns.calls import CallKind

LISTS: Final[Mapping[TurnStatus, tuple[str, ...]]] = {
    TurnStatus.QUEUED: ("queued", "begun"),
    TurnStatus.RUNNING: ("begun",),
    TurnStatus.PARKED: ("begun",),
    TurnStatus.COMPLETED: ("completed", MOVED_LISTS["completed"]),
    TurnStatus.FAILED: ("failed",),
    TurnStatus.CANCELLED: ("cancelled", MOVED_LISTS["cancelled"]),
}
"""The lists that contain turns of a status. Turns in the archive have their own lists."""

_IN_ARCHIVE: Final = frozenset(MOVED_LISTS.values())

_ALL: Final = ("failed", *sorted({name for names in LISTS.values() for name in names} - {"failed"}))
"""All lists of turns; the list of failed turns is first."""


T = TypeVar("T")


def _as_they_are(pieces: Mapping[int, Piece[Any]]) -> Mapping[int, Piece[Any]]:
    return pieces


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked(Generic[T]):
    """A query on the lists of each partition.

    Attributes:
        kind: The form in which the script returns an entry.
        names: The lists.
        filters: Values that an entry must match; None for filters that are not given.
        since: Seconds since 1970 of the oldest entry, or None.
        until: Seconds since 1970 of the newest entry, or None.
        summary: Converts an entry and its fields to an item; returns None if it is in the archive.
        complete: Adds the items that are in the archive and are in the lists.
        archived: Finds the items that are in the archive; None if they are in the lists.
    """

    kind: str
    names: Sequence[str]
    filters: Mapping[str, Any]
    since: float | None
    until: float | None
    summary: Callable[[str, Any], T | None]
    complete: Callable[[Mapping[int, Piece[Any]]], Mapping[int, Piece[T]]] = _as_they_are
    archived: ArchivedPage | None = None


class RedisLists(RedisPart, ListStore):
    """The `ListStore` in Redis. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        scripts: Scripts,
        archived: RedisTurnArchiving | None = None,
    ) -> None:
        super().__init__(settings, client, scripts)
        self._archived = archived
        self._in_archive = (
            None if archived is None else ArchivedLists(settings, client, scripts, archived)
        )
        self._ends = EndsReader(settings, client)

    @override
    def turns(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[TurnSummary]:
        self._check_on()
        names = {name for status in query.statuses for name in LISTS[status]}
        if query.error_code is not None or query.error is not None or query.asks:
            # Neither turns that failed nor those that ask are in the archive.
            names -= _IN_ARCHIVE
        if not names:
            return Paged(items=[], cursor=None)

        archived = None
        if self._in_archive is not None and names & _IN_ARCHIVE:
            archived = self._in_archive.page(query, limit)
        filters = {
            "statuses": sorted(query.statuses),
            "agent": query.agent,
            "tenant": query.tenant_id,
            "user": query.user_id,
            "conversation": query.conversation_id,
            "code": query.error_code,
            "text": None if query.error is None else lowered(query.error),
            "asks": query.asks or None,
            "beside": archived is not None or None,
        }
        asked: _Asked[TurnSummary] = _Asked(
            kind="turns",
            names=sorted(names),
            filters=filters,
            since=query.since,
            until=query.until,
            summary=turn_if_here,
            complete=lambda pieces: self._completed(pieces, query),
            archived=archived,
        )
        partitions = _partitions(query.conversation_id)
        return self._page(asked, limit, cursor, partitions, partial=partial)

    def _completed(
        self, pieces: Mapping[int, Piece[TurnSummary | None]], query: TurnQuery
    ) -> dict[int, Piece[TurnSummary]]:
        """Pieces with the matching turns from the archive added.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
        """
        away = [m.entry for piece in pieces.values() for m in piece.matches if m.item is None]
        found: dict[str, TurnSummary] = {}
        if away:
            if self._archived is None:
                raise no_archive()
            copies = self._archived.listed(away)
            found = {turn_id: archived_summary(copy) for turn_id, copy in copies.items()}
        return {
            partition: Piece(
                matches=[
                    Match(match.time, match.entry, item)
                    for match in piece.matches
                    if (item := match.item or if_wanted(found.get(match.entry), query)) is not None
                ],
                reached=piece.reached,
                looked_at=piece.looked_at,
            )
            for partition, piece in pieces.items()
        }

    @override
    def conversations(
        self,
        query: ConversationQuery,
        limit: int,
        cursor: str | None = None,
        *,
        partial: bool = False,
    ) -> Paged[ConversationSummary]:
        self._check_on()
        filters = {
            "agent": query.agent,
            "tenant": query.tenant_id,
            "user": query.user_id,
            "busy": query.busy,
            "active": moment(query.active_since),
            "idle": moment(query.idle_since),
        }

        asked = _Asked(
            kind="conversations",
            names=["conversations"],
            filters=filters,
            since=query.since,
            until=query.until,
            summary=conversation_summary,
        )
        return self._page(asked, limit, cursor, range(PARTITIONS), partial=partial)

    @override
    def approvals(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[PendingCall]:
        waiting = frozenset({TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.PARKED})
        asking = replace(query, asks=True, statuses=query.statuses & waiting)
        page = self.turns(asking, limit, cursor, partial=partial)
        pipeline = self._client.pipeline(transaction=False)
        for turn in page.items:
            pipeline.hgetall(turn_keys(turn.turn_id).calls)
        hashes = self._each_of("list", pipeline, everywhere=False) if page.items else []
        found = list(zip(page.items, hashes, strict=True))
        calls = [
            call
            for turn, fields in found
            if fields is not None
            for call in pending_calls(turn, {name.decode(): v for name, v in fields.items()})
            # Calls of client tools are answered by their client.
            if call.kind is CallKind.APPROVAL
        ]
        lost = {partition_of(turn.conversation_id) for turn, fields in found if fields is None}
        missing = self._missing(sorted(lost))
        if missing is not None and not partial:
            raise not_complete(missing)
        return Paged(
            items=calls,
            cursor=page.cursor,
            missing=page.missing if missing is None else missing + page.missing,
        )

    @override
    def counts(self, times: Sequence[float]) -> Sequence[TurnCount]:
        self._check_on()
        spans = len(times) - 1
        if spans < 1:
            return []
        bounds = [round(time * 1000) for time in times]
        calls: list[Call] = [(list_keys(p, _ALL), bounds) for p in range(PARTITIONS)]
        replies = [reply for reply in self._each("count", calls) if reply is not None]
        # Sums over all partitions; the numbers of the lists follow each other.
        sums = [sum(numbers) for numbers in zip(*replies, strict=True)]
        return [
            TurnCount(accepted=sum(sums[span::spans]), failed=sums[span]) for span in range(spans)
        ]

    @override
    def ends(self, after: str | float | None, limit: int, timeout: float = 0) -> Ends:
        self._check_on()
        with translate_errors(self._settings.redis_url):
            return self._ends.read(after, limit, timeout)

    def close(self) -> None:
        """Close the waiting connections."""
        self._ends.close()

    def _check_on(self) -> None:
        if not self._settings.list_limit:
            raise lists_are_off()

    def _page(
        self,
        asked: _Asked[T],
        limit: int,
        cursor: str | None,
        partitions: Sequence[int],
        *,
        partial: bool,
    ) -> Paged[T]:
        archived = asked.archived
        lost: set[int] = set() if archived is None else archived.lost

        def check() -> None:
            if lost and not partial:
                raise not_complete(Missing(partitions=len(lost)))

        def read(look: Look) -> Mapping[int, Piece[T]]:
            places = {p: place for p, place in look.places.items() if p != ARCHIVE}
            try:
                found = self._read(asked, replace(look, places=places))
            except StoreUnavailable:
                # All partitions of this request. Others may have answered an earlier one.
                if not partial or len(places) == len(partitions):
                    raise
                found = dict.fromkeys(places)
            lost.update(partition for partition, reply in found.items() if reply is None)
            check()
            pieces: dict[int, Piece[Any]] = {
                partition: _NOTHING if reply is None else _piece(reply, asked.summary)
                for partition, reply in found.items()
            }
            if archived is not None:
                for partition, reply in found.items():
                    archived.note(partition, pieces[partition], reply[3] if reply else 0)
                # Last: a turn that has moved since then is there.
                if (place := look.places.get(ARCHIVE)) is not None:
                    pieces[ARCHIVE] = archived.read(place)
                    check()
            return asked.complete(pieces)

        sources = partitions if archived is None else [*partitions, ARCHIVE]
        page = page_of(read, limit, cursor, partitions=sources)
        return replace(page, missing=self._missing(sorted(lost)))

    def _read(self, asked: _Asked[Any], look: Look) -> dict[int, Any]:
        earliest = "-inf" if asked.since is None else str(moment(asked.since))
        given = orjson.dumps(
            {name: value for name, value in asked.filters.items() if value is not None}
        )
        calls: list[Call] = [
            (
                list_keys(partition, asked.names),
                [asked.kind, *_begin(place, asked.until), earliest, look.wanted, look.most, given],
            )
            for partition, place in look.places.items()
        ]
        replies = self._each("list", calls, everywhere=len(calls) == PARTITIONS) if calls else []
        return dict(zip(look.places, replies, strict=True))


_NOTHING: Final[Piece[Any]] = Piece(matches=(), reached=None, looked_at=0)
"""The result for a partition that does not answer: the page continues without it."""


def _begin(place: Place, until: float | None) -> tuple[str, str]:
    """The script's start position: a time, and an entry of that time."""
    latest = math.inf if until is None else round(until * 1000)
    if place.time > latest:
        return f"{latest:.0f}", ""
    if math.isinf(place.time):
        return "+inf", ""
    return (f"{place.time:.0f}", place.entry) if place.entry else (f"({place.time:.0f}", "")


def _piece(reply: Any, summary: Any) -> Piece[Any]:
    reached, looked_at, matches, _ = reply
    return Piece(
        matches=[
            Match(int(time), entry.decode(), summary(entry.decode(), fields))
            for entry, time, *fields in matches
        ],
        reached=int(reached) if reached else None,
        looked_at=looked_at,
    )


def _partitions(conversation_id: str | None) -> Sequence[int]:
    return range(PARTITIONS) if conversation_id is None else [partition_of(conversation_id)]


def lowered(text: str) -> str:
    """Text in lower case as in Lua: ASCII letters only."""
    return text.encode(errors="replace").lower().decode()
