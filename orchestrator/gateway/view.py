"""A tenant's view of its conversations and turns: the one place that keeps tenants apart.

Routes get a `TenantView` and nothing behind it. Another tenant's objects look exactly like
objects that never existed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, suppress

from agentapi.errors import InvalidInput, StoreUnavailable, TurnNotFound
from agentapi.stores import CancelOutcome
from agentapi.turns import (
    Answers,
    Decision,
    Event,
    EventType,
    PendingCall,
    Step,
    Turn,
)
from orchestrator.data.forgetting import ForgottenUser
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.errors import Gone
from orchestrator.gateway.ids import turn_id_from
from orchestrator.gateway.tenants.names import public_id
from orchestrator.gateway.view_conversations import TenantConversations
from orchestrator.gateway.view_lists import TenantLists


class TenantView(TenantConversations):
    """Everything that a tenant may see and do: turns here, conversations in the base class."""

    @property
    def lists(self) -> TenantLists:
        """The tenant's lists, bulk changes and ends."""
        return TenantLists(self.gateway, self.tenant)

    def stream_slot(self) -> AbstractContextManager[None]:
        """A slot for a stream or a waiting request of the tenant, held while it is open.

        Raises:
            RateLimited: All of the tenant's slots are taken.
        """
        return self.gateway.stream_slots.hold(self.tenant)

    async def turn(self, turn_id: str) -> Turn:
        """A turn of this tenant, by its id or by the id of a response.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        asked = turn_id_from(turn_id)
        try:
            turn = await self.gateway.call(lambda o: o.store.turn(asked))
        # The same answer in all cases: a different one would reveal which ids other tenants have.
        except (TurnNotFound, InvalidInput):
            turn = None
        if turn is None or not self._owns(turn):
            raise TurnNotFound(
                f"there is no turn {turn_id!r}: it was never accepted, was deleted, or ended "
                "longer than AGENTAPI_TURN_RETENTION ago"
            )
        return turn

    def _owns(self, turn: Turn) -> bool:
        # Python producers may use the tenant's name for conversations outside the gateway.
        named = public_id(self.tenant, turn.conversation_id) is not None
        return named and turn.tenant_id == self.tenant

    async def cancel(self, turn_id: str) -> CancelOutcome:
        """Cancel a turn of this tenant. A waiting turn ends immediately, a running one soon.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        return await self.gateway.call(lambda orchestrator: orchestrator.cancel(turn.turn_id))

    async def pending(self, turn_id: str) -> list[PendingCall]:
        """Waiting calls of a turn of this tenant; see `TurnHandle.pending`.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        return await self.gateway.call(lambda orchestrator: orchestrator.pending(turn.turn_id))

    async def steps(self, turn: Turn) -> list[Step]:
        """The recorded steps of a turn of this tenant.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        return await self.gateway.call(lambda orchestrator: orchestrator.store.steps(turn.turn_id))

    async def answer(self, turn_id: str, answers: Answers) -> None:
        """Answer several calls of a turn of this tenant atomically.

        Raises:
            TurnNotFound: The turn does not exist, or is another tenant's.
            CallNotPending: One of the calls does not wait for an output, or has another one.
            InvalidInput: An output is too long.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        await self.gateway.call(lambda orchestrator: orchestrator.answer(turn.turn_id, answers))

    async def decide(self, turn_id: str, call_id: str, decision: Decision) -> None:
        """Decide about a tool call of a turn of this tenant, or of a turn that it waits for.

        Raises:
            InvalidInput: The arguments of the decision do not fit the tool's schema.
            TurnNotFound: The turn does not exist, or is another tenant's.
            CallNotPending: The call does not wait for a decision, or was decided otherwise.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        await self.gateway.call(
            lambda orchestrator: orchestrator.decide(turn.turn_id, call_id, decision)
        )

    async def forget_user(
        self,
        user_id: str,
        *,
        dry_run: bool,
        timeout: float,  # noqa: ASYNC109
    ) -> ForgottenUser:
        """Delete all data of a user of this tenant; see `Orchestrator.forget_user`.

        Raises:
            StoreUnavailable: Redis is out of reach. Some of it may be deleted.
        """
        # It occupies a thread for a while, and one tenant must not occupy all of them.
        async with self.gateway.conversations.slot(self.tenant):
            return await self.gateway.call(
                lambda orchestrator: orchestrator.forget_user(
                    user_id, tenant_id=self.tenant, dry_run=dry_run, timeout=timeout
                )
            )

    async def check_events(self, turn: Turn, after: int) -> None:
        """Check that the events after a number can still be read.

        Raises:
            Gone: The turn has ended and its events have expired.
            StoreUnavailable: Redis is out of reach.
        """
        if turn.status.ended and after < turn.last_event:
            first = await self.gateway.follower.past(turn.turn_id, after, count=1)
            if not first or first[0].number != after + 1:
                raise _events_gone()

    async def follow(
        self, turn_id: str, after: int, *, fresh: bool = False
    ) -> AsyncGenerator[list[Event] | Closed, None]:
        """The events of a turn of this tenant; see `AsyncFollower.follow`.

        An empty list means that nothing happened for a while.

        Raises:
            TurnNotFound: The turn was deleted in the meantime.
            Gone: The turn has ended and the rest of its events have expired.
            StoreUnavailable: Redis is out of reach at the beginning.
        """
        max_wait = self.gateway.settings.gateway_heartbeat
        seen, ended = after, False
        following = self.gateway.follower.follow(turn_id, after, max_wait=max_wait, fresh=fresh)
        async with aclosing(following):
            async for events in following:
                yield events
                if events:
                    seen = seen if isinstance(events, Closed) else events[-1].number
                    continue
                # No events for a while: the turn may have ended, and its events may have expired.
                try:
                    now = await self.turn(turn_id)
                except StoreUnavailable:
                    continue
                if now.status.ended and now.last_event <= seen:
                    return
                # The last events may arrive just after the turn was read, so check twice.
                if ended:
                    raise _events_gone()
                ended = now.status.ended

    async def wait(
        self,
        turn_id: str,
        seconds: float,
        enough: Callable[[Turn], bool] = lambda turn: False,
        *,
        new: bool = False,
    ) -> Turn:
        """Wait for a turn's end.

        Args:
            turn_id: The turn.
            seconds: Maximum seconds to wait.
            enough: Decides whether the wait for a parked turn can end.
            new: Whether this request created the turn, so that it need not be read first.

        Returns:
            The turn. It may still run when the time is up or the gateway shuts down.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        seen = -1
        if not new:
            turn = await self.turn(turn_id)
            if turn.status.ended or enough(turn):
                return turn
            seen = turn.last_event
        # The tenant's other requests continue while this one waits.
        if self.request_slot is not None:
            self.request_slot.release()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._wait(turn_id, seen, enough)
        return await self.turn(turn_id)

    async def _wait(self, turn_id: str, seen: int, enough: Callable[[Turn], bool]) -> Turn:
        while True:
            stopped = False
            # Only future events matter here, so the turn's past need not be read.
            async with aclosing(self.follow(turn_id, seen, fresh=True)) as events:
                async for found in events:
                    stopped = isinstance(found, Closed)
                    parked = not stopped and any(e.type is EventType.PARKED for e in found)  # type: ignore[union-attr]
                    if parked and enough(turn := await self.turn(turn_id)):
                        return turn
            turn = await self.turn(turn_id)
            if stopped or turn.status.ended or enough(turn):
                return turn
            seen = turn.last_event


def _events_gone() -> Gone:
    return Gone(
        "the turn has ended and its events have expired (AGENTAPI_EVENTS_RETENTION): read its "
        "result instead",
        code="events_expired",
    )
