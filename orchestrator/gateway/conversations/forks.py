"""Where a turn that continues another one runs: in the same conversation, or in a copy of the
history."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Final

from agentapi.errors import TurnNotFound
from agentapi.ids import partition_of
from agentapi.stores.conversations import Fork, Place
from agentapi.turns import Turn
from orchestrator.gateway.http.errors import Conflict, InvalidRequest
from orchestrator.gateway.tenants.ledger import OVERHEAD
from orchestrator.gateway.view import TenantView

_STEP_BYTES: Final = 65_536
"""Bytes that Redis copies in one step. A step blocks all other clients for about a millisecond."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """A plan for a turn that continues another.

    Attributes:
        turn: The turn to continue.
        operation: Identifies the new turn; a repeat with the same value makes the same plan.
        conversation_id: Public id of the conversation in which the new turn will run.
        bytes: Bytes that will be stored for it.
        place: Where the turn to continue ends, if the history must be copied.
        idle_time: Seconds of idleness after which the copy expires; that of turns when None.
    """

    turn: Turn
    operation: str
    conversation_id: str
    bytes: int = 0
    place: Place | None = None
    idle_time: float | None = None

    async def make(self, view: TenantView) -> Continuation:
        """Execute the plan. Returns a new plan, not executed, if another request took the place.

        Raises:
            Conflict: The history has changed.
            InvalidRequest: Another plan is needed, and the copy would be too large.
            StoreUnavailable: Redis cannot be reached.
        """
        if self.place is not None:
            await self._copy(view, self.place)
            return self
        store, turn = view.gateway.conversations, self.turn
        # Checked again and reserved: another request may have continued the turn since the plan.
        if await store.continue_from(turn.conversation_id, turn.turn_id, self.operation, take=True):
            return self
        return await _fork(view, self)

    async def _copy(self, view: TenantView, place: Place) -> None:
        fork = Fork(
            source=self.turn.conversation_id,
            copy=view.internal(self.conversation_id),
            tenant_id=view.tenant,
            user_id=self.turn.user_id,
            place=place,
            idle_time=self.idle_time or view.gateway.settings.turn_retention,
            step_bytes=_STEP_BYTES,
        )
        if not await view.gateway.conversations.fork(fork, view.tenant):
            raise Conflict(
                "the conversation changed while it was copied: repeat the request",
                code="conversation_changed",
                retry=True,
            )


async def continue_turn(
    view: TenantView, turn_id: str, operation: str, *, always_copy: bool = False
) -> Continuation:
    """Plan where a turn that continues a given turn will run. Changes nothing.

    Args:
        view: The caller's view.
        turn_id: The turn to continue.
        operation: Identifies the new turn.
        always_copy: Whether it always runs in a copy, which is kept as long as turns that are not
            stored.

    Raises:
        InvalidRequest: The turn does not exist or belongs to another tenant; or there is nothing to
            continue, or too much to copy.
        StoreUnavailable: Redis cannot be reached.
    """
    turn = await turn_to_continue(view, turn_id)
    here = Continuation(
        turn=turn, operation=operation, conversation_id=view.public(turn.conversation_id)
    )
    store = view.gateway.conversations
    if always_copy:
        here = replace(here, idle_time=view.gateway.settings.unstored_retention)
        return await _fork(view, here)
    if await store.continue_from(turn.conversation_id, turn_id, operation, take=False):
        return here
    return await _fork(view, here)


async def turn_to_continue(view: TenantView, turn_id: str) -> Turn:
    """Find the turn that a request continues.

    Raises:
        InvalidRequest: It does not exist, or is not stored.
        StoreUnavailable: Redis cannot be reached.
    """
    try:
        turn = await view.turn(turn_id)
        why = None if turn.stored else "it was created with store=false and is not kept"
    except TurnNotFound:
        why = (
            "it was never created, was deleted, was created with store=false, or ended longer than "
            "AGENTAPI_TURN_RETENTION ago"
        )
    if why is not None:
        raise InvalidRequest(
            f"the response to continue does not exist: {why}; send the earlier messages in input",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return turn


async def _fork(view: TenantView, here: Continuation) -> Continuation:
    turn, limit = here.turn, view.gateway.settings.gateway_fork_bytes
    history = view.history_of(turn.conversation_id)
    place = await history.seek(turn.turn_id)
    if place is None:
        raise InvalidRequest(
            f"the response is {turn.status.value}, so it cannot be continued: wait until it is "
            "completed, or continue the response before it",
            param="previous_response_id",
            code="previous_response_not_usable",
        )
    size = await history.measure(place.position, limit)
    if size > limit:
        raise InvalidRequest(
            "the response is not the newest of its conversation, and the history up to it has more "
            f"than {limit} bytes, which is too large to copy (AGENTAPI_GATEWAY_FORK_BYTES): "
            "continue the newest response, or start a new conversation",
            param="previous_response_id",
            code="fork_too_large",
        )
    copy = _name_beside(view, turn.conversation_id, f"{turn.turn_id}:{here.operation}")
    return replace(here, conversation_id=copy, bytes=size + OVERHEAD, place=place)


def _name_beside(view: TenantView, conversation_id: str, name: str) -> str:
    """A public id derived from a name, in the conversation's partition, because a script copies
    only within one partition."""
    partition = partition_of(conversation_id)
    number = 0
    while True:
        made = f"conv_{uuid.uuid5(uuid.NAMESPACE_OID, f'{name}:{number}').hex}"
        if partition_of(view.internal(made)) == partition:
            return made
        number += 1
