"""Changes a conversation: sends a message to an agent, or deletes the history."""

from __future__ import annotations

import uuid

from fastapi import Request, Response

from agentapi.errors import AgentAPIError, ServerUnavailable
from agentapi.stores import ConversationSummary
from agentapi.turns import OnBusy
from orchestrator.gateway.console.conversation import show
from orchestrator.gateway.console.entries import conversation_address
from orchestrator.gateway.console.flash import Flash
from orchestrator.gateway.console.pages import go_to
from orchestrator.gateway.console.routing import Form, View, console_router, needs, operation_of
from orchestrator.gateway.console.shown import number
from orchestrator.gateway.console.view import ConsoleView
from orchestrator.gateway.http.errors import problem_of
from orchestrator.gateway.tenants.names import internal_id, public_id
from orchestrator.gateway.tenants.scopes import Scope
from orchestrator.gateway.turn_submission import Existing, NewMessage, accept
from orchestrator.gateway.view import TenantView
from orchestrator.turn_request import TurnRequest

router = console_router()


@router.post("/conversation/send")
@needs(Scope.TURNS, Scope.OPERATE)
async def send(request: Request, view: View, form: Form) -> Response:
    """Send a message to an agent. A form that is posted twice sends one message."""
    conversation_id = form.get("id", "")
    found = await view.conversation(conversation_id)
    agent, message = form.get("agent", "").strip(), form.get("message", "")
    operation = operation_of(form)
    try:
        await _send(view, conversation_id, found, agent, message, f"console:{operation}")
    except ServerUnavailable:
        raise
    except AgentAPIError as error:
        problem = problem_of(error)
        return await show(
            request,
            view,
            conversation_id,
            status=problem.status,
            message=message,
            agent=agent,
            refused=problem.message,
        )
    return go_to(
        request, conversation_address(conversation_id), Flash(text="The message was accepted.")
    )


async def _send(
    view: ConsoleView,
    conversation_id: str,
    found: ConversationSummary,
    agent: str,
    message: str,
    key: str,
) -> None:
    """Enqueue a turn; in the gateway's conversations, within the tenant's limits."""
    gateway, tenant = view.gateway, found.tenant_id
    metadata = {"console": view.viewer.name}
    public = public_id(tenant, conversation_id) if tenant else None
    if tenant is not None and public is not None:
        new = NewMessage(
            agent=agent,
            text=message,
            idempotency_key=key,
            user_id=found.user_id,
            metadata=metadata,
            stream=True,
            on_busy=OnBusy.ENQUEUE,
            on_abort=None,
        )
        await accept(TenantView(gateway, tenant), new, Existing(conversation_id=public))
        return
    await gateway.agents.check(agent)
    turn = TurnRequest(
        agent=agent,
        message=message,
        conversation_id=conversation_id,
        user_id=found.user_id,
        tenant_id=tenant,
        idempotency_key=key,
        metadata=metadata,
        stream=True,
        on_busy=OnBusy.ENQUEUE,
    )
    await gateway.call(lambda orchestrator: orchestrator.enqueue_many([turn]))


@router.post("/conversation/reset")
@needs(Scope.TURNS, Scope.OPERATE)
async def reset(request: Request, view: View, form: Form) -> Response:
    """Delete the history of a conversation after confirmation."""
    conversation_id = form.get("id", "")
    await view.conversation(conversation_id)
    where = conversation_address(conversation_id)
    if form.get("sure") != "yes":
        text = "Nothing was deleted: tick the box to confirm."
        return go_to(request, where, Flash(text=text, kind="failed"))
    count = await view.gateway.call(lambda o: o.reset(conversation_id))
    text = f"The history was deleted: {number(count)} messages."
    return go_to(request, where, Flash(text=text))


@router.post("/conversations/start")
@needs(Scope.TURNS, Scope.OPERATE)
async def start(request: Request, view: View, form: Form) -> Response:
    """Begin a conversation of the viewer's tenant with a message."""
    operation = operation_of(form)
    tenant = view.viewer.tenant
    # Derived from the form's own id, so that a repeat does not start a second conversation.
    public = str(uuid.UUID(operation))
    new = NewMessage(
        agent=form.get("agent", "").strip(),
        text=form.get("message", ""),
        idempotency_key=f"console:{operation}",
        metadata={"console": view.viewer.name},
        stream=True,
        on_busy=OnBusy.ENQUEUE,
        on_abort=None,
    )
    await accept(TenantView(view.gateway, tenant), new, Existing(conversation_id=public))
    where = conversation_address(internal_id(tenant, public))
    return go_to(request, where, Flash(text="The conversation was created."))
