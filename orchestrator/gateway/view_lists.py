"""A tenant's view of lists, bulk changes and ends, without the entries of other tenants."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from agentapi.errors import AgentAPIError, TurnNotFound
from agentapi.stores import (
    ConversationQuery,
    ConversationSummary,
    Ends,
    Paged,
    TurnEnd,
    TurnQuery,
    TurnSummary,
)
from agentapi.turns import PendingCall, Turn
from orchestrator.bulk import FAILED, OPEN, REFUSALS, narrowed
from orchestrator.ends import AT_ONCE
from orchestrator.gateway.http.errors import RateLimited
from orchestrator.gateway.tenants.names import internal_id, public_id
from orchestrator.gateway.turn_changes import retry_turn

if TYPE_CHECKING:
    from orchestrator.gateway.services import Gateway

Change: TypeAlias = Callable[[TurnSummary], Awaitable[None]]

MAX_READS: Final = 20
"""Maximum pages of all tenants' ends that one request reads, even if few of the ends belong to the
tenant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """The result of a bulk change.

    Attributes:
        turn_ids: Turns that were changed; after a dry run, those that would have been.
        refused: Turns that could not be changed, each with its reason.
        more: Whether more turns may match.
    """

    turn_ids: Sequence[str]
    refused: Mapping[str, AgentAPIError]
    more: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedCall:
    """A tool call that waits for a decision.

    Attributes:
        call: The call.
        decide_at: The turn under which it is decided: its own, or the one that a client began and
            that waits for it.
    """

    call: PendingCall
    decide_at: str


class TenantLists:
    """The lists, bulk changes and ends that a tenant may use."""

    def __init__(self, gateway: Gateway, tenant: str) -> None:
        self._gateway = gateway
        self._tenant = tenant

    async def turns(
        self, query: TurnQuery, limit: int, cursor: str | None = None
    ) -> Paged[TurnSummary]:
        """A page of the tenant's turns, with the internal ids of conversations.

        Raises:
            InvalidInput: The cursor is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        own = self._own(query)
        page = await self._gateway.call(lambda o: o.store.lists.turns(own, limit, cursor))
        mine = [turn for turn in page.items if self._named(turn.conversation_id)]
        return Paged(items=mine, cursor=page.cursor)

    async def conversations(
        self, query: ConversationQuery, limit: int, cursor: str | None
    ) -> Paged[ConversationSummary]:
        """A page of the tenant's conversations. Raises the same errors as `turns`."""
        own = replace(query, tenant_id=self._tenant)
        page = await self._gateway.call(lambda o: o.store.lists.conversations(own, limit, cursor))
        mine = [each for each in page.items if self._named(each.conversation_id)]
        return Paged(items=mine, cursor=page.cursor)

    async def approvals(self, query: TurnQuery, limit: int, cursor: str | None) -> Paged[AskedCall]:
        """Waiting tool calls of the tenant's turns, including those of delegated turns. Raises the
        same errors as `turns`."""
        own = self._own(query)
        page = await self._gateway.call(lambda o: o.store.lists.approvals(own, limit, cursor))
        found = []
        for call in page.items:
            decide_at = await self._root_of(call)
            if decide_at is not None:
                found.append(AskedCall(call=call, decide_at=decide_at))
        return Paged(items=found, cursor=page.cursor)

    async def _root_of(self, call: PendingCall) -> str | None:
        """The client's turn that a call belongs to: its own, or the one that delegated it."""
        turn_id, conversation_id = call.turn_id, call.conversation_id
        while not self._named(conversation_id):
            try:
                parent_id = (await self._turn(turn_id)).parent_id
                if parent_id is None:
                    return None
                turn_id = parent_id
                conversation_id = (await self._turn(turn_id)).conversation_id
            except TurnNotFound:
                return None
        return turn_id

    async def _turn(self, turn_id: str) -> Turn:
        return await self._gateway.call(lambda o: o.store.turn(turn_id))

    async def cancel(self, query: TurnQuery, limit: int, *, dry_run: bool) -> Changed:
        """Cancel turns of the tenant that match and have not ended.

        Raises:
            InvalidInput: There is no filter.
            StoreUnavailable: Redis is out of reach; some turns may have been cancelled.
        """

        async def cancel(turn: TurnSummary) -> None:
            await self._gateway.call(lambda o: o.cancel(turn.turn_id))

        found = narrowed(query, OPEN, done="cancelled")
        return await self._change(found, limit, None if dry_run else cancel)

    async def retry(self, query: TurnQuery, limit: int, *, dry_run: bool) -> Changed:
        """Retry failed turns of the tenant that match, as far as its limits allow.

        Raises:
            InvalidInput: There is no filter.
            StoreUnavailable: Redis is out of reach; some turns may have been retried.
        """
        change = None if dry_run else self._retry
        return await self._change(narrowed(query, FAILED, done="retried"), limit, change)

    async def _retry(self, turn: TurnSummary) -> None:
        await retry_turn(self._gateway, self._tenant, turn.turn_id, turn.conversation_id)

    async def _change(self, query: TurnQuery, limit: int, change: Change | None) -> Changed:
        done: list[str] = []
        refused: dict[str, AgentAPIError] = {}
        page = await self.turns(query, limit)
        for _ in range(MAX_READS):
            if page.items or page.cursor is None:
                break
            page = await self.turns(query, limit, page.cursor)
        for turn in page.items:
            try:
                if change is not None:
                    await change(turn)
            except RateLimited as error:
                # This is the tenant's limit, which the next turn would also exceed.
                refused[turn.turn_id] = error
                break
            except REFUSALS as error:
                refused[turn.turn_id] = error
            else:
                done.append(turn.turn_id)
        handled = len(done) + len(refused)
        more = page.cursor is not None or handled < len(page.items)
        return Changed(turn_ids=done, refused=refused, more=more)

    async def ends(
        self, after: str | float | None, query: TurnQuery, limit: int, seconds: float
    ) -> Ends:
        """Ends of the tenant's turns after a position. Waits for the first one.

        Args:
            after: See `ListStore.ends`.
            query: The wanted agent, user, conversation and statuses.
            limit: Maximum number of ends.
            seconds: Maximum seconds to wait.

        Raises:
            InvalidInput: The position is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        own = self._own(query)
        deadline = time.monotonic() + seconds
        bell = self._gateway.bell
        reads = 0
        while True:
            waits = bell.waits
            found = await self._read_ends(after, max(limit, AT_ONCE))
            reads += 1
            mine = [end for end in found.ends if self._wanted(end, own)]
            if len(mine) > limit:
                return Ends(ends=mine[:limit], position=mine[limit - 1].position)
            after = found.position
            over = time.monotonic() >= deadline or self._gateway.stopping
            if mine or (over and (not found.ends or reads >= MAX_READS)):
                return Ends(ends=mine, position=after)
            if not found.ends:
                await bell.wait(after, waits)

    async def _read_ends(self, after: str | float | None, limit: int) -> Ends:
        return await self._gateway.call(lambda o: o.store.lists.ends(after, limit))

    def _wanted(self, end: TurnEnd, query: TurnQuery) -> bool:
        alike = (
            (query.agent, end.agent),
            (query.user_id, end.user_id or ""),
            (query.conversation_id, end.conversation_id),
        )
        return (
            end.tenant_id == self._tenant
            and self._named(end.conversation_id)
            and end.status in query.statuses
            and all(want is None or want == value for want, value in alike)
        )

    def _own(self, query: TurnQuery) -> TurnQuery:
        """The query for the tenant's own turns, with the public ids of conversations."""
        name = query.conversation_id
        conversation = None if name is None else internal_id(self._tenant, name)
        return replace(query, tenant_id=self._tenant, conversation_id=conversation)

    def _named(self, conversation_id: str) -> bool:
        # Python producers may use the tenant's name for conversations outside the gateway.
        return public_id(self._tenant, conversation_id) is not None
