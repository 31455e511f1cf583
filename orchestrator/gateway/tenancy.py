"""A tenant's view of conversations and turns: the one place that keeps tenants apart.

Routes get a `TenantView` and nothing behind it. What is another tenant's is not there: the
answer is the same as for what never was.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from agentapi.attachments import File, Image, blobs_of
from agentapi.errors import (
    AgentAPIError,
    InvalidConversationId,
    InvalidInput,
    ServerUnavailable,
    TurnNotFound,
)
from agentapi.ids import create_turn_id
from agentapi.messages import Message
from agentapi.turns import Event, OnAbort, OnBusy, PendingCall, Turn, Verdict
from orchestrator.client import Orchestrator
from orchestrator.gateway.conversations import Busy, Conversation
from orchestrator.gateway.core import Gateway
from orchestrator.gateway.errors import Conflict, Gone, InvalidRequest, NotFound
from orchestrator.gateway.follower import Closed
from orchestrator.gateway.labels import Labels, labelled, labels_of
from orchestrator.gateway.public_ids import is_turn_id
from orchestrator.handle import TurnHandle

PREFIX: Final = "gw"
MAX_ID: Final = 256

_ID = re.compile(r"[^/\x00-\x1f\x7f-\x9f]{1,256}")
_DELETE_PATIENCE: Final = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NewMessage:
    """A message that is to become a turn. The conversation's id is the public one.

    Attributes:
        idempotency_key: The caller's name for this turn in its conversation, or one made up.
        on_busy: See `TurnRequest`; the setting when None.
        on_abort: See `TurnRequest`; the setting when None.
    """

    agent: str
    text: str
    conversation_id: str
    idempotency_key: str
    attached: Sequence[Image | File] = ()
    user_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    stream: bool = False
    on_busy: OnBusy | None = OnBusy.ENQUEUE
    on_abort: OnAbort | None = OnAbort.DROP


class TenantView:
    """Everything a tenant may see and do."""

    def __init__(self, gateway: Gateway, tenant: str) -> None:
        self.gateway = gateway
        self.tenant = tenant
        self.prefix = f"{PREFIX}:{tenant}:"

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

    async def enqueue(self, message: NewMessage) -> str:
        """Accept a turn; returns its id.

        Raises:
            RateLimited: The tenant has too many turns in flight.
            UnknownAgent: There is no such agent.
            InvalidInput: An argument is not acceptable.
            ConversationBusy: The conversation's inbox is full.
            StoreUnavailable: Redis is out of reach; a repeat with the same key is safe.
        """
        await self.gateway.models.check(message.agent)
        conversation_id = self.internal(message.conversation_id)
        turn_id = create_turn_id(conversation_id, message.idempotency_key)
        limiter = self.gateway.limiter
        await limiter.admit(self.tenant, turn_id)
        try:
            handle = await self.gateway.call(
                lambda orchestrator: orchestrator.enqueue(
                    message.agent,
                    [message.text, *message.attached] if message.attached else message.text,
                    conversation_id=conversation_id,
                    user_id=message.user_id,
                    tenant_id=self.tenant,
                    idempotency_key=message.idempotency_key,
                    metadata=labelled(message.metadata, message.labels),
                    stream=message.stream,
                    on_busy=message.on_busy,
                    on_abort=message.on_abort,
                )
            )
        except AgentAPIError as refusal:
            # With Redis out of reach it may have been accepted all the same.
            if not isinstance(refusal, ServerUnavailable):
                await limiter.withdraw(self.tenant, turn_id)
            raise
        if handle.turn_id != turn_id:
            # It joined a turn that was counted when it came.
            await limiter.withdraw(self.tenant, turn_id)
        return handle.turn_id

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
        turn = await self.turn(turn_id)
        return await self.gateway.call(
            lambda orchestrator: TurnHandle(orchestrator, turn_id, turn.conversation_id).pending()
        )

    async def decide(
        self, turn_id: str, call_id: str, verdict: Verdict, *, reason: str | None, by: str | None
    ) -> None:
        """Decide about a tool call of a turn of this tenant, or of one that it waits for.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            CallNotPending: The call waits for no decision, or has another one.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)

        def decide(orchestrator: Orchestrator) -> None:
            handle = TurnHandle(orchestrator, turn_id, turn.conversation_id)
            if verdict is Verdict.APPROVED:
                handle.approve(call_id, by=by)
            else:
                handle.reject(call_id, reason, by=by)

        await self.gateway.call(decide)

    async def check_events(self, turn: Turn, after: int) -> None:
        """See that the events after a number can still be read.

        Raises:
            Gone: The turn has ended and its events are not kept any more.
            StoreUnavailable: Redis is out of reach.
        """
        if turn.status.ended and after < turn.last_event:
            first = await self.gateway.follower.past(turn.turn_id, after, count=1)
            if not first or first[0].number != after + 1:
                raise Gone(
                    "the turn has ended and its events are kept no longer "
                    "(AGENTAPI_EVENTS_RETENTION): read its result instead",
                    code="events_expired",
                )

    async def follow(
        self, turn: Turn, after: int, *, fresh: bool = False
    ) -> AsyncGenerator[list[Event] | Closed, None]:
        """A turn's events; see `AsyncFollower.follow`. An empty list is a sign of life.

        Raises:
            TurnNotFound: The turn was deleted meanwhile.
            StoreUnavailable: Redis is out of reach.
        """
        patience = self.gateway.settings.gateway_heartbeat
        seen = after
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
                now = await self.turn(turn.turn_id)
                if now.status.ended and now.last_event <= seen:
                    return

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

    async def conversation(self, conversation_id: str) -> Conversation:
        """A conversation of this tenant.

        Raises:
            NotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        store = self.gateway.conversations
        found = await store.find(self._existing(conversation_id), self.tenant)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def open(self, conversation_id: str, *, make: bool, **changes: Any) -> Conversation:
        """Find, make or change a conversation; see `ConversationStore.open`.

        Raises:
            NotFound: There is none, or it is another tenant's, and `make` is not set.
            StoreUnavailable: Redis is out of reach.
        """
        internal = self.internal(conversation_id) if make else self._existing(conversation_id)
        found = await self.gateway.conversations.open(internal, self.tenant, make=make, **changes)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def messages(self, conversation_id: str, start: int = 0, stop: int = -1) -> list[Message]:
        """Messages of a conversation of this tenant by position, oldest first.

        Raises:
            NotFound: There is none, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        await self.conversation(conversation_id)
        internal = self.internal(conversation_id)
        return await self.gateway.conversations.messages(internal, start, stop)

    async def remove_message(self, conversation_id: str, message: Message) -> bool:
        """Take a message out of a history; returns whether it was there.

        Raises:
            NotFound: There is no such conversation, or it is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        await self.conversation(conversation_id)
        internal = self.internal(conversation_id)
        return await self.gateway.conversations.remove(internal, message)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation and its turns; those that have not ended are cancelled first.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Conflict: A running turn did not stop in time.
            StoreUnavailable: Redis is out of reach.
        """
        internal = self._existing(conversation_id)
        deadline = asyncio.get_running_loop().time() + _DELETE_PATIENCE
        dropped = await self.gateway.conversations.drop(internal, self.tenant)
        while isinstance(dropped, Busy):
            for turn_id in reversed(dropped.turn_ids):
                await self._cancel_and_forget(internal, turn_id)
            if asyncio.get_running_loop().time() > deadline:
                raise Conflict(
                    "a turn of the conversation runs and has not stopped yet: it is cancelled; "
                    "delete the conversation again in some seconds",
                    code="conversation_busy",
                    retry_after=2,
                )
            dropped = await self.gateway.conversations.drop(internal, self.tenant)
            if isinstance(dropped, Busy):
                await asyncio.sleep(0.2)
        if dropped is None:
            raise no_conversation(conversation_id)
        for turn_id in {message.turn_id for message in dropped if is_turn_id(message.turn_id)}:
            await self.gateway.conversations.forget(internal, turn_id)

    async def _cancel_and_forget(self, conversation_id: str, turn_id: str) -> None:
        try:
            await self.gateway.call(lambda orchestrator: orchestrator.cancel(turn_id))
        except TurnNotFound:
            return
        await self.gateway.conversations.forget(conversation_id, turn_id)

    async def delete_turn(self, turn: Turn) -> None:
        """Delete an ended turn; its one-off conversation too, when nothing else is in it.

        Raises:
            Conflict: It has not ended.
            StoreUnavailable: Redis is out of reach.
        """
        if not await self.gateway.conversations.forget(turn.conversation_id, turn.turn_id):
            raise Conflict(
                "the turn has not ended: cancel it before you delete it",
                code="turn_not_ended",
                retry=False,
            )
        labels = labels_of(turn)
        if labels.implicit and labels.previous is None:
            store = self.gateway.conversations
            history = await store.messages(turn.conversation_id)
            if {message.turn_id for message in history[labels.seeded :]} <= {turn.turn_id}:
                await store.drop(turn.conversation_id, self.tenant)

    async def continue_turn(self, turn_id: str, operation: str) -> str:
        """Where a turn that follows a given one is to run: the public id of a conversation.

        It is the given turn's own conversation when that ends with it; else a copy of the
        history as it was then.

        Args:
            turn_id: The turn to continue.
            operation: Names the new turn; a repeat with the same name gets the same answer.

        Raises:
            TurnNotFound: There is none, or it is another tenant's.
            InvalidRequest: There is nothing to continue: it left no reply in the history.
            StoreUnavailable: Redis is out of reach.
        """
        turn = await self.turn(turn_id)
        store = self.gateway.conversations
        if await store.may_continue(turn.conversation_id, turn_id, operation):
            return self.public(turn.conversation_id)
        history = await store.messages(turn.conversation_id)
        ends = [at for at, message in enumerate(history) if message.turn_id == turn_id]
        if not ends:
            raise InvalidRequest(
                f"the response is {turn.status.value} and has no place in its conversation that "
                "could be continued: wait until it is completed, or continue the one before it",
                param="previous_response_id",
                code="previous_response_not_usable",
            )
        kept = history[: ends[-1] + 1]
        copy = f"conv_{uuid.uuid5(uuid.NAMESPACE_OID, f'{turn_id}:{operation}').hex}"
        await self.open(
            copy,
            make=True,
            user=turn.user_id,
            idle=self.gateway.settings.turn_retention,
            operation=operation,
            messages=kept,
            blobs=await store.blobs(turn.conversation_id, blobs_of(kept)),
        )
        return copy

    async def seeds(self, turn: Turn) -> Sequence[Message]:
        """The messages that the turn's request put before it."""
        seeded = labels_of(turn).seeded
        if not seeded:
            return ()
        return await self.gateway.conversations.messages(turn.conversation_id, 0, seeded - 1)

    def _existing(self, conversation_id: str) -> str:
        try:
            return self.internal(conversation_id)
        except InvalidConversationId:
            raise no_conversation(conversation_id) from None

    def scrub(self, error: AgentAPIError) -> str:
        """An error's text with public ids in it."""
        return str(error).replace(self.prefix, "")


def no_conversation(conversation_id: str) -> NotFound:
    """The error of a conversation that is not there, or not this tenant's."""
    return NotFound(
        f"there is no conversation {conversation_id!r}: it was never begun, or it was deleted",
        code="conversation_not_found",
    )
