"""A tenant's view of conversations and turns: the one place that keeps tenants apart.

Routes get a `TenantView` and nothing behind it. What is another tenant's is not there: the
answer is the same as for what never was.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, Final

from agentapi.conversation.messages import Message, dumps
from agentapi.errors import (
    AgentAPIError,
    InvalidConversationId,
    InvalidInput,
    StoreUnavailable,
    TurnNotFound,
)
from agentapi.stores.conversations import ConversationRecord
from agentapi.turns import Decision, Event, PendingCall, Turn, Verdict
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.conversations.history import History
from orchestrator.gateway.http.errors import Gone, NotFound
from orchestrator.gateway.openai.item_reader import Found, ItemReader
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.ledger import OVERHEAD
from orchestrator.gateway.turn_labels import labels_of

PREFIX: Final = "gw"
MAX_ID: Final = 256

_ID = re.compile(r"[^/\x00-\x1f\x7f-\x9f]{1,256}")


class TenantView:
    """Everything a tenant may see and do."""

    def __init__(self, gateway: Gateway, tenant: str) -> None:
        self.gateway = gateway
        self.tenant = tenant
        self.prefix = f"{PREFIX}:{tenant}:"

    def slot(self) -> AbstractContextManager[None]:
        """A place among the tenant's streams and waiting requests, to be held while one is open.

        Raises:
            RateLimited: All of them are taken.
        """
        return self.gateway.slots.slot(self.tenant)

    def internal(self, conversation_id: str) -> str:
        """The id in Redis of a public one.

        Raises:
            InvalidConversationId: It is not valid.
        """
        if not _ID.fullmatch(conversation_id):
            raise InvalidConversationId(
                f"conversation_id is not valid: expected 1 to {MAX_ID} characters, none a slash "
                "or a control character"
            )
        return f"{self.prefix}{conversation_id}"

    def public(self, conversation_id: str) -> str:
        """The public id of one in Redis."""
        return conversation_id.removeprefix(self.prefix)

    async def turn(self, turn_id: str) -> Turn:
        """A turn of this tenant.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        try:
            turn = await self.gateway.call(lambda o: o.store.turn(turn_id))
        except (TurnNotFound, InvalidInput):
            turn = None
        mine = turn and turn.tenant_id == self.tenant
        if turn is None or not (mine and turn.conversation_id.startswith(self.prefix)):
            raise TurnNotFound(
                f"there is no turn {turn_id!r}: it was never accepted, it was deleted, or it "
                "ended longer than AGENTAPI_TURN_RETENTION ago"
            )
        return turn

    async def cancel(self, turn_id: str) -> None:
        """Cancel a turn of this tenant: a waiting one at once, a running one soon.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        await self.turn(turn_id)
        await self.gateway.call(lambda orchestrator: orchestrator.cancel(turn_id))

    async def pending(self, turn_id: str) -> list[PendingCall]:
        """Tool calls of a turn of this tenant that wait for a decision.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        await self.turn(turn_id)
        return await self.gateway.call(lambda orchestrator: orchestrator.pending(turn_id))

    async def decide(
        self, turn_id: str, call_id: str, verdict: Verdict, *, reason: str | None, by: str | None
    ) -> None:
        """Decide about a tool call of a turn of this tenant, or of one that it waits for.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            CallNotPending: The call waits for no decision, or has another one.
            StoreUnavailable: Redis is out of reach.
        """
        await self.turn(turn_id)
        told = reason if verdict is Verdict.REJECTED else None
        decision = Decision(verdict=verdict, reason=told, by=by)
        await self.gateway.call(
            lambda orchestrator: orchestrator.decide(turn_id, call_id, decision)
        )

    async def check_events(self, turn: Turn, after: int) -> None:
        """See that the events after a number can still be read.

        Raises:
            Gone: The turn has ended and its events are not kept any more.
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
            TurnNotFound: The turn was deleted meanwhile.
            Gone: The turn has ended and the rest of its events is not kept any more.
            StoreUnavailable: Redis is out of reach at the beginning.
        """
        patience = self.gateway.settings.gateway_heartbeat
        seen, ended = after, False
        following = self.gateway.follower.follow(
            turn.turn_id, after, patience=patience, fresh=fresh
        )
        async with aclosing(following):
            async for events in following:
                yield events
                if events:
                    seen = seen if isinstance(events, Closed) else events[-1].number
                    continue
                # Nothing for a while: the turn may have ended, and its events be gone.
                try:
                    now = await self.turn(turn.turn_id)
                except StoreUnavailable:
                    continue
                if now.status.ended and now.last_event <= seen:
                    return
                if ended:
                    raise _events_gone()
                ended = now.status.ended

    async def wait(self, turn_id: str, seconds: float) -> Turn:
        """A turn when it has ended, or as it stands when the time is up or the gateway stops.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        if not turn.status.ended:
            try:
                async with asyncio.timeout(seconds):
                    async with aclosing(self.follow(turn, turn.last_event, fresh=True)) as events:
                        async for _ in events:
                            pass
            except TimeoutError:
                pass
            turn = await self.turn(turn_id)
        return turn

    async def conversation(self, conversation_id: str) -> ConversationRecord:
        """A conversation of this tenant.

        Raises:
            NotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        store = self.gateway.conversations
        found = await store.find(self.existing(conversation_id), self.tenant)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def open(self, conversation_id: str, *, make: bool, **changes: Any) -> ConversationRecord:
        """Find, make or change a conversation; see `Conversations.open`.

        Raises:
            NotFound: There is none, or it is another tenant's, and `make` is not set.
            StoreUnavailable: Redis is out of reach.
        """
        internal = self.internal(conversation_id) if make else self.existing(conversation_id)
        found = await self.gateway.conversations.open(internal, self.tenant, make=make, **changes)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    def history(self, conversation_id: str) -> History:
        """The history of a conversation by its public id; nothing is read yet.

        Raises:
            NotFound: The id is not valid.
        """
        return self.history_of(self.existing(conversation_id))

    def history_of(self, internal: str) -> History:
        """The same by its id in Redis."""
        return History(self.gateway.conversations, internal, self.tenant)

    def items(self, conversation_id: str) -> ItemReader:
        """The items of a conversation; nothing is read yet.

        Raises:
            NotFound: The id is not valid.
        """
        internal = self.existing(conversation_id)
        return ItemReader(self.history_of(internal), internal, self.gateway.positions)

    async def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        make: bool,
        metadata: Mapping[str, str] | None = None,
    ) -> ConversationRecord:
        """Put messages at the end of a conversation, and count their bytes.

        Raises:
            NotFound: There is none, or it is another tenant's, and `make` is not set.
            RateLimited: The tenant has stored as much as it may.
            StoreUnavailable: Redis is out of reach.
        """
        ledger = self.gateway.ledger
        internal = self.internal(conversation_id) if make else self.existing(conversation_id)
        size = OVERHEAD * make + sum(len(dumps(message)) for message in messages)
        await ledger.charge(self.tenant, internal, size)
        try:
            return await self.open(
                conversation_id,
                make=make,
                metadata=metadata,
                operation=uuid.uuid4().hex,
                messages=messages,
            )
        except NotFound:
            await ledger.refund(self.tenant, internal, size)
            raise

    async def remove(self, conversation_id: str, item: Found) -> bool:
        """Take an item's message out of a history; returns whether it was where it was read.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        internal, operation = self.existing(conversation_id), uuid.uuid4().hex
        store = self.gateway.conversations
        removed = await store.remove(internal, self.tenant, item.kept, operation)
        if removed:
            await self.gateway.ledger.refund(self.tenant, internal, len(item.kept.raw))
        return removed

    async def seeds(self, turn: Turn) -> Sequence[Message]:
        """The messages that the turn's request put before it."""
        seeded = labels_of(turn).seeded
        if not seeded:
            return ()
        history = self.history_of(turn.conversation_id)
        found = await history.messages(0, seeded, self.gateway.settings.gateway_max_body_bytes)
        return found[1] if found is not None else ()

    def existing(self, conversation_id: str) -> str:
        """The id in Redis of a public one that must be there.

        Raises:
            NotFound: It is not valid, so that there is none.
        """
        try:
            return self.internal(conversation_id)
        except InvalidConversationId:
            raise no_conversation(conversation_id) from None

    def scrub(self, error: AgentAPIError) -> str:
        """An error's text with public ids in it."""
        return str(error).replace(self.prefix, "")


def _events_gone() -> Gone:
    return Gone(
        "the turn has ended and its events are kept no longer (AGENTAPI_EVENTS_RETENTION): read "
        "its result instead",
        code="events_expired",
    )


def no_conversation(conversation_id: str) -> NotFound:
    """The error of a conversation that is not there, or not this tenant's."""
    return NotFound(
        f"there is no conversation {conversation_id!r}: it was never begun, or it was deleted",
        code="conversation_not_found",
    )
