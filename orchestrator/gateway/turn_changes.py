"""Runs turns again within their tenant's limits: retries and forks."""

from __future__ import annotations

from agentapi.conversation.messages import dumps
from agentapi.errors import AgentAPIError, ServerUnavailable
from orchestrator.fork import ForkRequest, plan_fork, size_of_history
from orchestrator.gateway.http.errors import InvalidRequest
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.ledger import OVERHEAD, Admission
from orchestrator.gateway.tenants.names import public_id


async def fork_turn(gateway: Gateway, tenant: str | None, request: ForkRequest) -> str:
    """Run a turn again from one of its steps; returns the new turn's id.

    Args:
        gateway: The process's services.
        tenant: The turn's tenant. Only what the gateway's tenants store is counted.
        request: The fork.

    Raises:
        InvalidInput: A fork cannot begin at that step, or the message is not valid.
        InvalidRequest: The history before the turn is too large to copy.
        TurnNotForkable: The required data is not stored.
        TurnNotFound: The turn does not exist any more.
        RateLimited: The tenant has too many turns in flight, or too many bytes.
        StoreUnavailable: Redis is out of reach; a repeat with the same key is safe.
    """
    plan = await gateway.call(lambda o: plan_fork(o.store, o.settings, request))
    counted = tenant is not None and public_id(tenant, plan.source.conversation_id) is not None
    if tenant is None or not counted:
        return (await gateway.call(lambda o: o.accept_fork(request))).turn_id
    size = 0
    if plan.place is not None:
        last, limit = plan.place.position, gateway.settings.gateway_fork_bytes
        size = await gateway.call(lambda o: size_of_history(o.store, plan.source, last, limit))
        if size > limit:
            raise InvalidRequest(
                f"the history before the turn has more than {limit} bytes, which is too large to "
                "copy (AGENTAPI_GATEWAY_FORK_BYTES)",
                code="fork_too_large",
            )
    said = len(plan.turn.input.encode()) + sum(map(len, plan.turn.blobs.values()))
    prior = sum(len(dumps(message)) for message in plan.turn.prior)
    admission = Admission(
        turn_id=plan.turn.turn_id,
        conversation_id=plan.turn.conversation_id,
        bytes=size + said,
        turn_bytes=len(plan.turn.input.encode()) + prior + OVERHEAD,
    )
    new = await gateway.ledger.admit(tenant, admission)
    try:
        return (await gateway.call(lambda o: o.accept_fork(request))).turn_id
    except AgentAPIError as refusal:
        # If Redis did not answer, the turn may have been accepted: it stays counted.
        if new and not isinstance(refusal, ServerUnavailable):
            await gateway.ledger.withdraw(tenant, admission)
        raise


async def retry_turn(
    gateway: Gateway, tenant: str | None, turn_id: str, conversation_id: str
) -> None:
    """Run a failed turn again.

    Args:
        gateway: The process's services.
        tenant: The turn's tenant; see `fork_turn`.
        turn_id: The turn.
        conversation_id: Its conversation, by its id in Redis.

    Raises:
        TurnNotRetryable: It has not failed.
        ConversationBusy: The conversation has too many turns that have not ended.
        TurnNotFound: The turn does not exist any more.
        RateLimited: The tenant has too many turns in flight.
        StoreUnavailable: Redis is out of reach.
    """
    if tenant is None or public_id(tenant, conversation_id) is None:
        await gateway.call(lambda o: o.retry(turn_id))
        return
    # Its bytes are already counted, so only count it as in flight again.
    admission = Admission(turn_id=turn_id, conversation_id=conversation_id, bytes=0, turn_bytes=0)
    new = await gateway.ledger.admit(tenant, admission)
    try:
        await gateway.call(lambda o: o.retry(turn_id))
    except AgentAPIError as refusal:
        # If Redis did not answer, the turn may be in flight, so it stays counted.
        if new and not isinstance(refusal, ServerUnavailable):
            await gateway.ledger.withdraw(tenant, admission, stored=False)
        raise
