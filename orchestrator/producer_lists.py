"""`ListsProducer`: lists turns, changes them in bulk and follows their ends, without any ids."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from typing_extensions import Unpack

from agentapi.stores import ConversationSummary, TurnEnd, TurnQuery, TurnSummary
from agentapi.turns import PendingCall
from orchestrator.bulk import FAILED, OPEN, BulkResult, apply, narrowed
from orchestrator.ends import EndFilters, follow, position_of, wanted_end
from orchestrator.listing import (
    ConversationFilters,
    Listing,
    TurnFilters,
    WhoseTurns,
    conversation_query,
    turn_query,
)
from orchestrator.producer import Producer


class ListsProducer(Producer):
    """A producer that also lists what other producers have enqueued."""

    def turns(self, **filters: Unpack[TurnFilters]) -> Listing[TurnSummary]:
        """Turns, newest first; all of them, or those that match every filter.

        Args:
            filters: `status`, `agent`, `tenant_id`, `user_id`, `conversation_id`, `error_code`,
                `error`, `since`, `until`; see `TurnFilters`.

        Raises:
            InvalidInput: A filter is not valid.
        """
        return self._turns(turn_query(filters))

    def _turns(self, query: TurnQuery) -> Listing[TurnSummary]:
        return Listing(
            lambda limit, cursor, partial: self.store.lists.turns(
                query, limit, cursor, partial=partial
            )
        )

    def conversations(self, **filters: Unpack[ConversationFilters]) -> Listing[ConversationSummary]:
        """Conversations, newest first; all of them, or those that match every filter.

        Args:
            filters: `agent`, `tenant_id`, `user_id`, `busy`, `since`, `until`, `active_since`,
                `idle_since`; see `ConversationFilters`.

        Raises:
            InvalidInput: A filter is not valid.
        """
        query = conversation_query(filters)
        return Listing(
            lambda limit, cursor, partial: self.store.lists.conversations(
                query, limit, cursor, partial=partial
            )
        )

    def approvals(self, **filters: Unpack[WhoseTurns]) -> Listing[PendingCall]:
        """Tool calls that wait for a decision, in all conversations; newest turns first.

        Args:
            filters: `agent`, `tenant_id`, `user_id`, `conversation_id`, `since`, `until` of the
                turn; see `WhoseTurns`.

        Raises:
            InvalidInput: A filter is not valid.
        """
        query = turn_query(filters)
        return Listing(
            lambda limit, cursor, partial: self.store.lists.approvals(
                query, limit, cursor, partial=partial
            )
        )

    def retry_all(
        self, *, dry_run: bool = False, limit: int | None = None, **filters: Unpack[TurnFilters]
    ) -> BulkResult:
        """Retry the failed turns that match, newest first; see `TurnHandle.retry`.

        Args:
            dry_run: Whether to change nothing, and return what would be retried.
            limit: The most turns; all when not given.
            filters: As in `turns`; at least one.

        Raises:
            InvalidInput: A filter is not valid, or there is none.
            StoreUnavailable: Redis is out of reach; some turns may have been retried.
        """
        query = narrowed(turn_query(filters), FAILED, done="retried")
        # A turn that fails again in the meantime keeps its place, so it is retried only once.
        return apply(self._turns(query), self.retry, dry_run=dry_run, limit=limit)

    def cancel_all(
        self, *, dry_run: bool = False, limit: int | None = None, **filters: Unpack[TurnFilters]
    ) -> BulkResult:
        """Cancel the turns that match and have not ended, newest first.

        Args:
            dry_run: Whether to change nothing, and return what would be cancelled.
            limit: The most turns; all when not given.
            filters: As in `turns`; at least one.

        Raises:
            InvalidInput: A filter is not valid, or there is none.
            StoreUnavailable: Redis is out of reach; some turns may have been cancelled.
        """
        query = narrowed(turn_query(filters), OPEN, done="cancelled")
        return apply(self._turns(query), self.cancel, dry_run=dry_run, limit=limit)

    def ends(
        self,
        after: str | float | datetime | None = None,
        *,
        timeout: float | None = None,
        **filters: Unpack[EndFilters],
    ) -> Iterator[TurnEnd]:
        """Ends of turns as they happen: replies, failures and cancellations.

        Each end is delivered at least once, and the ends of one conversation in order. Ends are
        stored for a while (`ends_retention`, `ends_limit`), so that a reader can continue after a
        pause.

        Args:
            after: `TurnEnd.position` of the last end that was processed; a time; ``start`` for the
                oldest stored end; None for ends from now on.
            timeout: Seconds without an end after which the iterator ends; None for no limit.
            filters: `agent`, `tenant_id`, `user_id`, `conversation_id`, `status`; see `EndFilters`.

        Raises:
            InvalidInput: The position or a filter is not valid.
            StoreUnavailable: Redis is out of reach. Continue from the last position.
        """
        wanted = wanted_end(filters)
        start = position_of(after)
        if start is None:
            # Resolve the position now, not when the caller asks for the first end.
            start = self.store.lists.ends(None, 1).position
        return follow(self.store.lists, start, timeout, wanted)
