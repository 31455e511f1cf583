"""Lists in the native API: turns, conversations, approvals, ends; and changes of many turns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from agentapi.stores import MAX_PAGE, ConversationQuery, TurnQuery, TurnSummary
from agentapi.turns import TurnStatus
from orchestrator.gateway.dependencies import View
from orchestrator.gateway.http.errors import public_text
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.native.approvals import PendingCallView, call_view
from orchestrator.gateway.native.turns import TurnFault
from orchestrator.gateway.view import TenantView
from orchestrator.gateway.view_lists import Changed

router = APIRouter(tags=["native"], route_class=StrictRoute)

Status = Literal["queued", "running", "parked", "completed", "failed", "cancelled"]
EndStatus = Literal["completed", "failed", "cancelled"]

Time = Annotated[float, Field(ge=0, lt=1e11)]
"""Seconds since 1970."""

Limit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="Maximum number of entries.")]
Cursor = Annotated[str, Field(description="`next` of the previous page.")]

MAX_WAIT: Final = 60.0
"""Maximum seconds that a request for ends may wait."""


class WhoseTurns(BaseModel):
    """Filters by the owner of turns."""

    model_config = ConfigDict(extra="forbid")

    agent: Annotated[str | None, Field(description="Agent that the turn was enqueued for.")] = None
    user: Annotated[str | None, Field(description='User of the turn; "" for none.')] = None
    conversation: Annotated[str | None, Field(description="The turn's conversation.")] = None


class TurnFilter(WhoseTurns):
    """Filters of turns."""

    status: Annotated[
        list[Status] | None, Field(description="Status of the turn; may be repeated.")
    ] = None
    error: Annotated[
        str | None, Field(description="Text that the error's code or message contains.")
    ] = None
    error_code: Annotated[str | None, Field(description="The error's code.")] = None
    since: Annotated[Time | None, Field(description="Accepted at this time or later.")] = None
    until: Annotated[Time | None, Field(description="Accepted at this time or earlier.")] = None

    def query(self) -> TurnQuery:
        """The turns as the store takes them."""
        return TurnQuery(
            statuses=_statuses(self.status),
            agent=self.agent,
            user_id=self.user,
            conversation_id=self.conversation,
            error=self.error,
            error_code=self.error_code,
            since=self.since,
            until=self.until,
        )


class ListTurns(TurnFilter):
    """A page of turns."""

    cursor: Cursor | None = None
    limit: Limit = 100


class ListApprovals(WhoseTurns):
    """A page of waiting tool calls."""

    cursor: Cursor | None = None
    limit: Limit = 100


class ListConversations(BaseModel):
    """A page of conversations."""

    model_config = ConfigDict(extra="forbid")

    agent: Annotated[str | None, Field(description="Agent of the conversation's newest turn.")] = (
        None
    )
    user: Annotated[str | None, Field(description='User of the conversation; "" for none.')] = None
    busy: Annotated[
        bool | None, Field(description="Whether the conversation has unfinished turns.")
    ] = None
    since: Annotated[Time | None, Field(description="Created at this time or later.")] = None
    until: Annotated[Time | None, Field(description="Created at this time or earlier.")] = None
    active_since: Annotated[Time | None, Field(description="Changed at this time or later.")] = None
    idle_since: Annotated[Time | None, Field(description="Not changed after this time.")] = None
    cursor: Cursor | None = None
    limit: Limit = 100


class ListEnds(WhoseTurns):
    """Which ends, and how long to wait for them."""

    after: Annotated[
        str | None,
        Field(
            description="`position` of the previous page, or `start` for the oldest end; "
            "defaults to now."
        ),
    ] = None
    since: Annotated[Time | None, Field(description="Start at this time, in place of `after`.")] = (
        None
    )
    status: Annotated[
        list[EndStatus] | None, Field(description="How the turn ended; may be repeated.")
    ] = None
    wait: Annotated[
        float, Field(ge=0, le=MAX_WAIT, description="Maximum seconds to wait for the first end.")
    ] = 0
    limit: Limit = 100


class TurnEntry(BaseModel):
    """A turn in a list. Times are seconds since 1970."""

    turn_id: str
    conversation_id: str
    agent: str
    status: str
    user_id: str | None
    parent_id: str | None
    steps: int
    attempt: int
    error: TurnFault | None
    created_at: float
    started_at: float | None
    ended_at: float | None


class TurnPage(BaseModel):
    """Turns, newest first. A page may be short or empty even if `next` is set."""

    turns: list[TurnEntry]
    next: str | None


class ConversationEntry(BaseModel):
    """A conversation in a list. Times are seconds since 1970."""

    conversation_id: str
    agent: Annotated[str | None, Field(description="Agent that the newest turn was enqueued for.")]
    user_id: str | None
    metadata: dict[str, Any]
    messages: int
    turns: Annotated[int, Field(description="Number of turns that have ended.")]
    open_turns: Annotated[int, Field(description="Number of turns that have not ended.")]
    tokens: int
    created_at: float
    updated_at: float
    archived: Annotated[bool, Field(description="Whether its history is in the archive.")]


class ConversationPage(BaseModel):
    """Conversations, newest first. A page may be short or empty even if `next` is set."""

    conversations: list[ConversationEntry]
    next: str | None


class AskedCallView(PendingCallView):
    """A tool call that waits for a decision."""

    decide_at: Annotated[
        str, Field(description="The turn to use for the decision: POST /turns/{decide_at}/calls/…")
    ]


class ApprovalPage(BaseModel):
    """Waiting tool calls. A page may be short or empty even if `next` is set."""

    calls: list[AskedCallView]
    next: str | None


class ChangeTurns(TurnFilter):
    """Which turns to change; at least one filter."""

    model_config = ConfigDict(strict=True)

    dry_run: Annotated[bool, Field(description="Change nothing; return what would change.")] = False
    limit: Limit = 100


class RefusedTurn(BaseModel):
    """A turn that could not be changed."""

    turn_id: str
    error: TurnFault


class TurnsChanged(BaseModel):
    """What was changed, or would be changed after a dry run. Repeat the request while `more` is
    true."""

    turn_ids: list[str]
    refused: list[RefusedTurn]
    dry_run: bool
    more: bool


class EndEntry(BaseModel):
    """The end of a turn. Its `id` never changes."""

    id: str
    turn_id: str
    conversation_id: str
    agent: str
    status: str
    user_id: str | None
    error_code: str | None
    ended_at: float


class EndPage(BaseModel):
    """Ends; those of one conversation are in order. `position` is the `after` of the next page."""

    ends: list[EndEntry]
    position: str


def _statuses(given: Sequence[str] | None) -> frozenset[TurnStatus]:
    return frozenset(TurnStatus if given is None else map(TurnStatus, given))


def _turn(view: TenantView, turn: TurnSummary) -> TurnEntry:
    fault = None
    if turn.error is not None:
        message = public_text(turn.error.message, turn.error.code)
        fault = TurnFault(code=turn.error.code, message=message)
    return TurnEntry(
        turn_id=turn.turn_id,
        conversation_id=view.public(turn.conversation_id),
        agent=turn.agent,
        status=turn.status.value,
        user_id=turn.user_id,
        parent_id=turn.parent_id,
        steps=turn.steps,
        attempt=turn.attempt,
        error=fault,
        created_at=turn.created_at,
        started_at=turn.started_at,
        ended_at=turn.ended_at,
    )


@router.get("/turns")
async def list_turns(asked: Annotated[ListTurns, Query()], view: View) -> TurnPage:
    """Turns, newest first."""
    page = await view.lists.turns(asked.query(), asked.limit, asked.cursor)
    return TurnPage(turns=[_turn(view, turn) for turn in page.items], next=page.cursor)


@router.get("/conversations")
async def list_conversations(
    asked: Annotated[ListConversations, Query()], view: View
) -> ConversationPage:
    """Conversations, newest first."""
    query = ConversationQuery(
        agent=asked.agent,
        user_id=asked.user,
        busy=asked.busy,
        since=asked.since,
        until=asked.until,
        active_since=asked.active_since,
        idle_since=asked.idle_since,
    )
    page = await view.lists.conversations(query, asked.limit, asked.cursor)
    entries = [
        ConversationEntry(
            conversation_id=view.public(found.conversation_id),
            agent=found.agent,
            user_id=found.user_id,
            metadata=dict(found.metadata),
            messages=found.messages,
            turns=found.turns,
            open_turns=found.open_turns,
            tokens=found.tokens,
            created_at=found.created_at,
            updated_at=found.updated_at,
            archived=found.archived,
        )
        for found in page.items
    ]
    return ConversationPage(conversations=entries, next=page.cursor)


@router.get("/approvals")
async def list_approvals(asked: Annotated[ListApprovals, Query()], view: View) -> ApprovalPage:
    """Tool calls of all turns that are waiting for a decision, including those of delegated
    turns."""
    query = TurnQuery(agent=asked.agent, user_id=asked.user, conversation_id=asked.conversation)
    page = await view.lists.approvals(query, asked.limit, asked.cursor)
    calls = [
        AskedCallView(**call_view(found.call).model_dump(), decide_at=found.decide_at)
        for found in page.items
    ]
    return ApprovalPage(calls=calls, next=page.cursor)


@router.post("/turns/cancel")
async def cancel_turns(body: ChangeTurns, view: View) -> TurnsChanged:
    """Cancel many unfinished turns, newest first."""
    changed = await view.lists.cancel(body.query(), body.limit, dry_run=body.dry_run)
    return _changed(changed, body.dry_run)


@router.post("/turns/retry")
async def retry_turns(body: ChangeTurns, view: View) -> TurnsChanged:
    """Retry many failed turns from their last recorded steps, newest first."""
    changed = await view.lists.retry(body.query(), body.limit, dry_run=body.dry_run)
    return _changed(changed, body.dry_run)


def _changed(changed: Changed, dry_run: bool) -> TurnsChanged:
    refused = [
        RefusedTurn(
            turn_id=turn_id,
            error=TurnFault(code=error.code, message=public_text(error.without_ids(), error.code)),
        )
        for turn_id, error in changed.refused.items()
    ]
    return TurnsChanged(
        turn_ids=list(changed.turn_ids), refused=refused, dry_run=dry_run, more=changed.more
    )


@router.get("/ends")
async def list_ends(asked: Annotated[ListEnds, Query()], view: View) -> EndPage:
    """Ends of turns: replies, failures, cancellations. Each is delivered at least once, and those
    of one conversation in order. Continue at `position`, even if a page is empty."""
    query = TurnQuery(
        statuses=_statuses(asked.status),
        agent=asked.agent,
        user_id=asked.user,
        conversation_id=asked.conversation,
    )
    after = asked.since if asked.after is None else asked.after
    with ExitStack() as held:
        if asked.wait:
            held.enter_context(view.stream_slot())
            # The tenant's other requests continue while this one waits.
            if view.request_slot is not None:
                view.request_slot.release()
        found = await view.lists.ends(after, query, asked.limit, asked.wait)
    entries = [
        EndEntry(
            id=end.id,
            turn_id=end.turn_id,
            conversation_id=view.public(end.conversation_id),
            agent=end.agent,
            status=end.status.value,
            user_id=end.user_id,
            error_code=end.error_code,
            ended_at=end.ended_at,
        )
        for end in found.ends
    ]
    return EndPage(ends=entries, position=found.position)
