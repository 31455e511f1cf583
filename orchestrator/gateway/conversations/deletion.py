"""Deletes conversations and turns in small steps, so that no other request waits for them."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing, suppress
from typing import Final

from starlette.background import BackgroundTask

from agentapi.errors import AgentAPIError, TurnNotFound
from agentapi.stores.conversations import Dropped, ForgottenTurn, Unended
from agentapi.turns import Turn
from orchestrator.gateway.http.errors import Conflict
from orchestrator.gateway.turn_labels import labels_of
from orchestrator.gateway.view import TenantView
from orchestrator.gateway.view_conversations import no_conversation

_MAX_WAIT: Final = 5.0
"""Seconds for a cancelled turn to stop, in addition to the expiry of a dead worker's lease."""

_PAUSE: Final = 0.2


async def delete_conversation(view: TenantView, conversation_id: str) -> None:
    """Delete a conversation and its turns; turns that have not ended are cancelled first.

    Raises:
        NotFound: The conversation does not exist, or belongs to another tenant.
        Conflict: A running turn did not stop in time.
        StoreUnavailable: Redis cannot be reached.
    """
    internal = view.existing(conversation_id)
    store, operation = view.gateway.conversations, uuid.uuid4().hex
    loop = asyncio.get_running_loop()
    # A dead worker holds its turn until its lease expires, so the wait must be at least that long.
    deadline = loop.time() + view.gateway.settings.lease_ttl + _MAX_WAIT
    stopping: set[str] = set()
    dropped = await store.drop(internal, view.tenant, operation)
    while isinstance(dropped, Unended):
        # Newest first, because otherwise the end of each turn would start the next.
        for turn_id in reversed(dropped.turn_ids):
            if await _cancel_and_forget(view, internal, turn_id):
                stopping.discard(turn_id)
            else:
                stopping.add(turn_id)
        if loop.time() > deadline:
            raise Conflict(
                "a turn of the conversation is being cancelled but has not stopped yet: delete the "
                "conversation again in a few seconds",
                code="conversation_busy",
                retry_after=2,
            )
        dropped = await store.drop(internal, view.tenant, operation)
        if isinstance(dropped, Unended):
            await asyncio.sleep(_PAUSE)
    if dropped is None:
        raise no_conversation(conversation_id)
    # Turns that were still running when they were cancelled. No history names them.
    for turn_id in stopping:
        await _forget(view, internal, turn_id)
    await _wipe(view, dropped)


async def delete_turn(view: TenantView, turn: Turn) -> None:
    """Delete an ended turn, and the conversation made for it if nothing else is in it.

    Raises:
        Conflict: The turn has not ended.
        StoreUnavailable: Redis cannot be reached.
    """
    if not await _forget(view, turn.conversation_id, turn.turn_id):
        raise Conflict(
            "the turn has not ended: cancel it before deleting it",
            code="turn_not_ended",
            retry=False,
        )
    labels = labels_of(turn)
    if not labels.implicit or labels.previous is not None:
        return
    count = await _messages_if_alone(view, turn, labels.seeded)
    if count is not None:
        store = view.gateway.conversations
        dropped = await store.drop(
            # Only if it is unchanged since it was read: another request may have added something.
            turn.conversation_id,
            view.tenant,
            uuid.uuid4().hex,
            expected=count,
        )
        if isinstance(dropped, Dropped):
            await _wipe(view, dropped)


def after_reply(view: TenantView, turn: Turn) -> BackgroundTask | None:
    """Called after a turn's result was sent: delete a turn with store=false."""
    unstored = turn.status.ended and not turn.stored
    return BackgroundTask(forget_unstored, view, turn) if unstored else None


def after_stream(view: TenantView, turn: Turn) -> BackgroundTask | None:
    """The same for a turn whose events were sent. A client that disconnected early can still read
    the rest."""

    async def forget() -> None:
        with suppress(AgentAPIError):
            await forget_unstored(view, await view.turn(turn.turn_id))

    return None if turn.stored else BackgroundTask(forget)


async def forget_unstored(view: TenantView, turn: Turn) -> None:
    """Delete an ended turn with store=false, and the conversation that was created for it.

    Never raises: data that cannot be deleted now expires after `AGENTAPI_UNSTORED_RETENTION`.
    """
    if turn.stored or not turn.status.ended:
        return
    with suppress(AgentAPIError):
        await _forget(view, turn.conversation_id, turn.turn_id)
        # A conversation without a name, or a copy, was created for this turn alone.
        if labels_of(turn).implicit:
            operation = uuid.uuid4().hex
            dropped = await view.gateway.conversations.drop(
                turn.conversation_id, view.tenant, operation
            )
            if isinstance(dropped, Dropped):
                await _wipe(view, dropped)


async def _messages_if_alone(view: TenantView, turn: Turn, seeded: int) -> int | None:
    """The number of messages in a conversation of this turn only; None when there are others."""
    count = seeded
    history = view.history_of(turn.conversation_id)
    async with aclosing(history.up(seeded)) as groups:
        async for group in groups:
            if group[0].message.turn_id != turn.turn_id:
                return None
            count = group[-1].position + 1
    return count


async def _cancel_and_forget(view: TenantView, conversation_id: str, turn_id: str) -> bool:
    """Cancel and delete a turn; returns whether nothing of it is left."""
    try:
        await view.gateway.call(lambda orchestrator: orchestrator.cancel(turn_id))
    except TurnNotFound:
        return True
    return await _forget(view, conversation_id, turn_id)


async def _forget(view: TenantView, conversation_id: str, turn_id: str) -> bool:
    forgotten = await view.gateway.conversations.forget(conversation_id, turn_id)
    if isinstance(forgotten, ForgottenTurn):
        await view.gateway.ledger.forgotten(view.tenant, [forgotten])
    return not isinstance(forgotten, Unended)


async def _wipe(view: TenantView, dropped: Dropped) -> None:
    # After `drop` the conversation is no longer visible. If this stops halfway, its remaining data
    # expires.
    forgotten = await view.gateway.conversations.wipe(dropped, view.tenant)
    await view.gateway.ledger.dropped(view.tenant, dropped.conversation_id)
    await view.gateway.ledger.forgotten(view.tenant, forgotten)
