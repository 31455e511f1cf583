"""Lists of turns and conversations in memory, and the ends of turns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from typing_extensions import override

from agentapi.errors import InvalidInput
from agentapi.settings import Settings
from agentapi.stores.calls import CallStore
from agentapi.stores.in_memory.state import Conversation, State, StoredTurn
from agentapi.stores.lists import (
    FROM_START,
    ConversationQuery,
    ConversationSummary,
    Ends,
    ListStore,
    Paged,
    TurnCount,
    TurnEnd,
    TurnQuery,
    TurnSummary,
)
from agentapi.stores.merging import TOP, Match, Place, check_limit, decoded, encoded
from agentapi.stores.redis.lists import lowered
from agentapi.stores.refusals import lists_are_off
from agentapi.turns import PendingCall, TurnStatus
from agentapi.turns.calls import CallKind

T = TypeVar("T")


class InMemoryLists(ListStore):
    """The `ListStore` of eager mode."""

    def __init__(self, settings: Settings, state: State, calls: CallStore) -> None:
        self._settings = settings
        self._state = state
        self._calls = calls

    @override
    def turns(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[TurnSummary]:
        self._check_on()
        with self._state.changed:
            found = [
                Match(_milliseconds(entry.turn.created_at), turn_id, summary_of(entry))
                for turn_id, entry in self._state.turns.items()
                if turn_id not in self._state.merged and _matches(entry, query)
            ]
        return _page(found, limit, cursor)

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
        with self._state.changed:
            found = [
                Match(_milliseconds(conversation.created_at), conversation_id, summary)
                for conversation_id, conversation in self._state.conversations.items()
                if _fits(summary := self._summary(conversation_id, conversation), query)
            ]
        return _page(found, limit, cursor)

    def _summary(self, conversation_id: str, conversation: Conversation) -> ConversationSummary:
        memory = conversation.memory
        return ConversationSummary(
            conversation_id=conversation_id,
            created_at=conversation.created_at,
            updated_at=conversation.updated_at,
            agent=conversation.agent,
            user_id=memory.user_id,
            tenant_id=memory.tenant_id,
            turns=conversation.turns,
            open_turns=len(conversation.inbox),
            messages=len(memory.messages),
            tokens=conversation.spent.tokens,
            cost=conversation.spent.cost,
            metadata=dict(conversation.metadata),
        )

    @override
    def approvals(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, partial: bool = False
    ) -> Paged[PendingCall]:
        waiting = frozenset(status for status in TurnStatus if not status.ended)
        asking = replace(query, asks=True, statuses=query.statuses & waiting)
        with self._state.changed:
            page = self.turns(asking, limit, cursor)
            calls = [call for turn in page.items for call in self._calls.pending(turn.turn_id)]
            calls = [call for call in calls if call.kind is CallKind.APPROVAL]
        return Paged(items=calls, cursor=page.cursor)

    @override
    def counts(self, times: Sequence[float]) -> Sequence[TurnCount]:
        self._check_on()
        bounds = [_milliseconds(time) for time in times]
        with self._state.changed:
            turns = [
                (_milliseconds(entry.turn.created_at), entry.turn.status is TurnStatus.FAILED)
                for turn_id, entry in self._state.turns.items()
                if turn_id not in self._state.merged
            ]
        counts = []
        for start, stop in pairwise(bounds):
            failures = [failed for created, failed in turns if start <= created < stop]
            counts.append(TurnCount(accepted=len(failures), failed=sum(failures)))
        return counts

    @override
    def ends(self, after: str | float | None, limit: int, timeout: float = 0) -> Ends:
        self._check_on()
        check_limit(limit)
        deadline = time.monotonic() + timeout
        with self._state.changed:
            at = self._number(after)
            while True:
                first = self._state.ended - len(self._state.ends)
                kept = list(self._state.ends)[max(0, at - first) :][:limit]
                remaining = deadline - time.monotonic()
                if kept or remaining <= 0:
                    break
                self._state.changed.wait(remaining)
            at = max(at, first)
        ends = [replace(end, position=str(at + n)) for n, end in enumerate(kept, 1)]
        return Ends(ends=ends, position=str(at + len(kept)))

    def _number(self, after: str | float | None) -> int:
        """How many ends there were up to a position."""
        if after is None:
            return self._state.ended
        if isinstance(after, str):
            if after == FROM_START:
                return 0
            if not after.isdecimal():
                raise InvalidInput(
                    "not a position: expected TurnEnd.position, 'start', or a time in seconds "
                    "since 1970"
                )
            return int(after)
        first = self._state.ended - len(self._state.ends)
        return first + sum(end.ended_at < after for end in self._state.ends)

    def _check_on(self) -> None:
        if not self._settings.list_limit:
            raise lists_are_off()


def end_of(entry: StoredTurn) -> TurnEnd:
    """The end of a turn that has just ended."""
    turn = entry.turn
    return TurnEnd(
        id=f"{turn.turn_id}:{turn.last_event}",
        position="",
        turn_id=turn.turn_id,
        conversation_id=turn.conversation_id,
        agent=turn.agent,
        status=turn.status,
        ended_at=turn.ended_at or 0.0,
        user_id=turn.user_id,
        tenant_id=turn.tenant_id,
        error_code=turn.error.code if turn.error else None,
    )


def summary_of(entry: StoredTurn) -> TurnSummary:
    """A turn of a list."""
    turn = entry.turn
    return TurnSummary(
        turn_id=turn.turn_id,
        conversation_id=turn.conversation_id,
        agent=turn.agent,
        kind=turn.kind,
        user_id=turn.user_id,
        tenant_id=turn.tenant_id,
        status=turn.status,
        created_at=turn.created_at,
        started_at=turn.started_at,
        ended_at=turn.ended_at,
        wakes_at=turn.wakes_at,
        attempt=turn.attempt,
        steps=turn.steps,
        worker=turn.worker,
        cancel_requested=turn.cancel_requested,
        parent_id=turn.parent_id,
        error=turn.error,
    )


def _matches(entry: StoredTurn, query: TurnQuery) -> bool:
    turn, error = entry.turn, entry.turn.error
    failure = f"{error.code} {error.message}" if error else " "
    wanted = (
        (query.agent, turn.agent),
        (query.tenant_id, turn.tenant_id or ""),
        (query.user_id, turn.user_id or ""),
        (query.conversation_id, turn.conversation_id),
        (query.error_code, error.code if error else ""),
    )
    # A turn with store=false leaves the lists, unless it may be retried.
    left = turn.status.ended and turn.status is not TurnStatus.FAILED and not turn.stored
    return (
        turn.status in query.statuses
        and not left
        and all(want is None or want == value for want, value in wanted)
        and (query.error is None or lowered(query.error) in lowered(failure))
        and _within(turn.created_at, query.since, query.until)
        and (not query.asks or bool(entry.calls.questions))
    )


def _fits(summary: ConversationSummary, query: ConversationQuery) -> bool:
    wanted = (
        (query.agent, summary.agent or ""),
        (query.tenant_id, summary.tenant_id or ""),
        (query.user_id, summary.user_id or ""),
        (query.busy, summary.open_turns > 0),
    )
    return (
        all(want is None or want == value for want, value in wanted)
        and _within(summary.created_at, query.since, query.until)
        and _within(summary.updated_at, query.active_since, query.idle_since)
    )


def _within(moment: float, since: float | None, until: float | None) -> bool:
    at = _milliseconds(moment)
    after = since is None or at >= round(since * 1000)
    return after and (until is None or at <= round(until * 1000))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _page(matches: Iterable[Match[T]], limit: int, cursor: str | None) -> Paged[T]:
    check_limit(limit)
    start = TOP if cursor is None else decoded(cursor)
    found: Sequence[Match[T]] = sorted(
        (match for match in matches if match[:2] < start), key=lambda m: m[:2], reverse=True
    )
    more = len(found) > limit
    last = found[limit - 1] if more else None
    return Paged(
        items=[match.item for match in found[:limit]],
        cursor=encoded(Place(last.time, last.entry)) if last else None,
    )
