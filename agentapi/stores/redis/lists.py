"""Lists of turns and conversations in Redis, and the ends of turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
import redis
from typing_extensions import override

from agentapi.ids import PARTITIONS, partition_of
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
from agentapi.stores.redis.calls_codec import pending_calls
from agentapi.stores.redis.ends import EndsReader
from agentapi.stores.redis.lists_codec import conversation_summary, turn_summary
from agentapi.stores.refusals import lists_are_off
from agentapi.turns import PendingCall, TurnStatus
from agentapi.turns.calls import CallKind

LISTS: Final[Mapping[TurnStatus, tuple[str, ...]]] = {
    TurnStatus.QUEUED: ("queued", "begun"),
    TurnStatus.RUNNING: ("begun",),
    TurnStatus.PARKED: ("begun",),
    TurnStatus.COMPLETED: ("completed",),
    TurnStatus.FAILED: ("failed",),
    TurnStatus.CANCELLED: ("cancelled",),
}
"""The lists that turns of a status are in."""

_ALL: Final = ("failed", *sorted({name for names in LISTS.values() for name in names} - {"failed"}))
"""All lists of turns, that of failed ones first."""


class RedisLists(ListStore):
    """The `ListStore` in Redis. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts
        self._ends = EndsReader(settings, client)

    @override
    def turns(self, query: TurnQuery, limit: int, cursor: str | None = None) -> Paged[TurnSummary]:
        self._check_on()
        names = sorted({name for status in query.statuses for name in LISTS[status]})
        filters = {
            "statuses": sorted(query.statuses),
            "agent": query.agent,
            "tenant": query.tenant_id,
            "user": query.user_id,
            "conversation": query.conversation_id,
            "code": query.error_code,
            "text": None if query.error is None else lowered(query.error),
            "asks": query.asks or None,
        }
        if not names:
            return Paged(items=[], cursor=None)

        def read(look: Look) -> Mapping[int, Piece[TurnSummary]]:
            found = self._read("turns", names, look, filters, query.since, query.until)
            return {p: _piece(reply, turn_summary) for p, reply in found.items()}

        return page_of(read, limit, cursor, partitions=_partitions(query.conversation_id))

    @override
    def conversations(
        self, query: ConversationQuery, limit: int, cursor: str | None = None
    ) -> Paged[ConversationSummary]:
        self._check_on()
        filters = {
            "agent": query.agent,
            "tenant": query.tenant_id,
            "user": query.user_id,
            "busy": query.busy,
            "active": _milliseconds(query.active_since),
            "idle": _milliseconds(query.idle_since),
        }

        def read(look: Look) -> Mapping[int, Piece[ConversationSummary]]:
            names = ["conversations"]
            found = self._read("conversations", names, look, filters, query.since, query.until)
            return {p: _piece(reply, conversation_summary) for p, reply in found.items()}

        return page_of(read, limit, cursor)

    @override
    def approvals(
        self, query: TurnQuery, limit: int, cursor: str | None = None
    ) -> Paged[PendingCall]:
        waiting = frozenset({TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.PARKED})
        asking = replace(query, asks=True, statuses=query.statuses & waiting)
        page = self.turns(asking, limit, cursor)
        pipeline = self._client.pipeline(transaction=False)
        for turn in page.items:
            pipeline.hgetall(turn_keys(turn.turn_id).calls)
        with translate_errors(self._settings.redis_url):
            hashes: list[dict[bytes, bytes]] = pipeline.execute() if page.items else []
        calls = [
            call
            for turn, fields in zip(page.items, hashes, strict=True)
            for call in pending_calls(turn, {name.decode(): v for name, v in fields.items()})
            # Calls of client tools have their client to answer them.
            if call.kind is CallKind.APPROVAL
        ]
        return Paged(items=calls, cursor=page.cursor)

    @override
    def counts(self, times: Sequence[float]) -> Sequence[TurnCount]:
        self._check_on()
        spans = len(times) - 1
        if spans < 1:
            return []
        bounds = [round(time * 1000) for time in times]
        calls: list[Call] = [(list_keys(p, _ALL), bounds) for p in range(PARTITIONS)]
        with translate_errors(self._settings.redis_url):
            replies = self._scripts.call_many("count", calls)
        # Sums over all partitions; the numbers of each list follow those of the one before.
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

    def _read(
        self,
        kind: str,
        names: Sequence[str],
        look: Look,
        filters: Mapping[str, Any],
        since: float | None,
        until: float | None,
    ) -> dict[int, Any]:
        earliest = "-inf" if since is None else str(_milliseconds(since))
        given = orjson.dumps({name: value for name, value in filters.items() if value is not None})
        calls: list[Call] = [
            (
                list_keys(partition, names),
                [kind, *_begin(place, until), earliest, look.wanted, look.most, given],
            )
            for partition, place in look.places.items()
        ]
        with translate_errors(self._settings.redis_url):
            replies = self._scripts.call_many("list", calls)
        return dict(zip(look.places, replies, strict=True))


def _begin(place: Place, until: float | None) -> tuple[str, str]:
    """Where the script begins: a time, and an entry of that time."""
    latest = math.inf if until is None else round(until * 1000)
    if place.time > latest:
        return f"{latest:.0f}", ""
    if math.isinf(place.time):
        return "+inf", ""
    return (f"{place.time:.0f}", place.entry) if place.entry else (f"({place.time:.0f}", "")


def _piece(reply: Any, summary: Any) -> Piece[Any]:
    reached, looked_at, matches = reply
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


def _milliseconds(time: float | None) -> int | None:
    return None if time is None else round(time * 1000)


def lowered(text: str) -> str:
    """Text in lower case as Lua sees it: letters of ASCII."""
    return text.encode(errors="replace").lower().decode()
