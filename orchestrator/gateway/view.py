"""A tenant's view of its conversations and turns: the one place that keeps tenants apart.

Routes get a `TenantView` and nothing behind it. Another tenant's objects look exactly like
objects that never existed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing

from agentapi.errors import InvalidInput, StoreUnavailable, TurnNotFound
from agentapi.turns import Decision, Event, PendingCall, Turn, Verdict
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.errors import Gone
from orchestrator.gateway.tenants.names import public_id
from orchestrator.gateway.view_conversations import TenantConversations
from orchestrator.gateway.view_lists import TenantLists


class TenantView(TenantConversations):
    """Everything a tenant may see and do: conversations, see the base class, and turns."""

    @property
    def lists(self) -> TenantLists:
        """What the tenant may list, change in bulk and follow."""
        return TenantLists(self.gateway, self.tenant)

    def stream_slot(self) -> AbstractContextManager[None]:
        """One of the tenant's streams and waiting requests, to be held while it is open.

        Raises:
            RateLimited: The tenant has as many as it may.
        """
        return self.gateway.stream_slots.hold(self.tenant)

    async def turn(self, turn_id: str) -> Turn:
        """A turn of this tenant.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        try:
            turn = await self.gateway.call(lambda o: o.store.turn(turn_id))
        # One answer for all cases: another one would tell which ids other tenants have.
        except (TurnNotFound, InvalidInput):
            turn = None
        if turn is None or not self._owns(turn):
            raise TurnNotFound(
                f"there is no turn {turn_id!r}: it was never accepted, it was deleted, or it "
                "ended longer than AGENTAPI_TURN_RETENTION ago"
            )
        return turn

    def _owns(self, turn: Turn) -> bool:
        # Python producers may use the tenant's name for conversations that are not the gateway's.
        named = public_id(self.tenant, turn.conversation_id) is not None
        return named and turn.tenant_id == self.tenant

    async def cancel(self, turn_id: str) -> None:
        """Cancel a turn of this tenant. A waiting turn ends immediately, a running one soon.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        await self.turn(turn_id)
        await self.gateway.call(lambda orchestrator: orchestrator.cancel(turn_id))

    async def pending(self, turn_id: str) -> list[PendingCall]:
        """Tool calls of a turn of this tenant that wait for a decision.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        await self.turn(turn_id)
        return await self.gateway.call(lambda orchestrator: orchestrator.pending(turn_id))

    async def decide(
        self, turn_id: str, call_id: str, verdict: Verdict, *, reason: str | None, by: str | None
    ) -> None:
        """Decide about a tool call of a turn of this tenant, or of a turn that it waits for.

        Raises:
            TurnNotFound: The turn does not exist, or is another tenant's.
            CallNotPending: The call does not wait for a decision, or was decided otherwise.
            StoreUnavailable: Redis is out of reach.
        """
        await self.turn(turn_id)
        told = reason if verdict is Verdict.REJECTED else None
        decision = Decision(verdict=verdict, reason=told, by=by)
        await self.gateway.call(
            lambda orchestrator: orchestrator.decide(turn_id, call_id, decision)
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
        self, turn: Turn, after: int, *, fresh: bool = False
    ) -> AsyncGenerator[list[Event] | Closed, None]:
        """A turn's events; see `AsyncFollower.follow`. An empty list is a sign of life.

        Raises:
            TurnNotFound: The turn was deleted in the meantime.
            Gone: The turn has ended and the rest of its events have expired.
            StoreUnavailable: Redis is out of reach at the beginning.
        """
        max_wait = self.gateway.settings.gateway_heartbeat
        seen, ended = after, False
        following = self.gateway.follower.follow(
            turn.turn_id, after, max_wait=max_wait, fresh=fresh
        )
        async with aclosing(following):
            async for events in following:
                yield events
                if events:
                    seen = seen if isinstance(events, Closed) else events[-1].number
                    continue
                # No event for a while: the turn may have ended and its events have expired.
                try:
                    now = await self.turn(turn.turn_id)
                except StoreUnavailable:
                    continue
                if now.status.ended and now.last_event <= seen:
                    return
                # The last events may arrive just after the turn was read: look twice.
                if ended:
                    raise _events_gone()
                ended = now.status.ended

    async def wait(self, turn_id: str, seconds: float) -> Turn:
        """Wait for a turn's end.

        Returns:
            The turn. It may still run when the time is up or the gateway shuts down.

        Raises:
            TurnNotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        if not turn.status.ended:
            # The tenant's other requests go on while this one waits.
            if self.request_slot is not None:
                self.request_slot.release()
            try:
                async with asyncio.timeout(seconds):
                    # Only the end matters here, so the turn's past need not be read.
                    async with aclosing(self.follow(turn, turn.last_event, fresh=True)) as events:
                        async for _ in events:
                            pass
            except TimeoutError:
                pass
            turn = await self.turn(turn_id)
        return turn


def _events_gone() -> Gone:
    return Gone(
        "the turn has ended and its events have expired (AGENTAPI_EVENTS_RETENTION): read its "
        "result instead",
        code="events_expired",
    )
