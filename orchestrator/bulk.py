"""Retrying or cancelling many turns with one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agentapi.errors import (
    AgentAPIError,
    ConversationBusy,
    InvalidInput,
    TenantMismatch,
    TurnNotFound,
    TurnNotRetryable,
)
from agentapi.stores import TurnQuery, TurnSummary
from agentapi.turns import TurnStatus
from orchestrator.wording import either

OPEN: Final = frozenset(status for status in TurnStatus if not status.ended)
FAILED: Final = frozenset({TurnStatus.FAILED})

REFUSALS: Final = (ConversationBusy, TenantMismatch, TurnNotFound, TurnNotRetryable)
"""Errors that affect only one turn; the others are still changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkResult:
    """The result of `retry_all` or `cancel_all`.

    Attributes:
        turn_ids: Turns that were retried or cancelled; after a dry run, those that would have been.
        refused: Turns that could not be changed, each with its reason.
        dry_run: Whether nothing was changed.
    """

    turn_ids: Sequence[str]
    refused: Mapping[str, AgentAPIError] = field(default_factory=dict)
    dry_run: bool = False


def narrowed(query: TurnQuery, allowed: frozenset[TurnStatus], *, done: str) -> TurnQuery:
    """Restrict a query to the turns that an operation can change.

    Args:
        query: The caller's query.
        allowed: Statuses of the turns that the operation can change.
        done: What the operation does to a turn, such as `retried`, for error messages.

    Raises:
        InvalidInput: There is no filter, or the filters exclude all of these turns.
    """
    if query == TurnQuery():
        raise InvalidInput(
            "no filter is given: pass at least one, for example since=0 for turns of any age"
        )
    if not query.statuses & allowed:
        raise InvalidInput(
            f"only {_either(allowed)} turns can be {done}; the filter asks for "
            f"{_either(query.statuses)} turns"
        )
    return replace(query, statuses=query.statuses & allowed)


def _either(statuses: frozenset[TurnStatus]) -> str:
    return either([status.value for status in TurnStatus if status in statuses])


def apply(
    turns: Iterable[TurnSummary],
    change: Callable[[str], object],
    *,
    dry_run: bool,
    limit: int | None,
) -> BulkResult:
    """Change each turn; continue if one is refused.

    Args:
        turns: The turns that were found.
        change: Changes one turn, by its id.
        dry_run: Whether to change nothing.
        limit: Maximum number of turns; all when not given.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}: expected a number above 0, or None for all turns")
    done: list[str] = []
    refused: dict[str, AgentAPIError] = {}
    for turn in turns:
        try:
            if not dry_run:
                change(turn.turn_id)
        except REFUSALS as error:
            refused[turn.turn_id] = error
        else:
            done.append(turn.turn_id)
        if limit is not None and len(done) + len(refused) >= limit:
            break
    return BulkResult(turn_ids=tuple(done), refused=refused, dry_run=dry_run)
