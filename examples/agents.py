"""The agents of the demo: a support desk, and five agents that write.

They use the provider `offline`, or the one named by AGENTAPI_EXAMPLE_PROVIDER.
"""

from __future__ import annotations

import os

from agentapi import Agent, Delegate, ToolContext, delegate, handoff, tool

PROVIDER = os.environ.get("AGENTAPI_EXAMPLE_PROVIDER", "offline")

_ORDERS = {"7": "shipped on Monday", "8": "waiting for payment", "9": "delivered"}


@tool
def lookup_order(order_id: str) -> str:
    """Look up where an order is.

    Args:
        order_id: The number on the invoice.
    """
    return f"order {order_id} is {_ORDERS.get(order_id, 'unknown')}"


@tool(idempotent=True)
async def open_ticket(subject: str, context: ToolContext) -> dict[str, str]:
    """Open a support ticket.

    Args:
        subject: What it is about, in one line.
    """
    # A repeated call has the same key, so the ticket system opens only one ticket.
    return {"ticket": context.idempotency_key[-8:], "subject": subject}


@tool(requires_approval=lambda amount: amount > 50, approval_timeout=86_400)
def refund(order_id: str, amount: float) -> str:
    """Refund money. Large amounts need a colleague's approval.

    Args:
        order_id: The number on the invoice.
        amount: In euros.
    """
    return f"{amount:.2f} euros of order {order_id} were refunded"


@tool
def look_into(topics: list[str]) -> list[Delegate]:
    """Ask for research on several topics in parallel.

    Args:
        topics: One line each.
    """
    return [delegate("research", topic) for topic in topics]


billing = Agent(
    name="billing", system_prompt="You answer questions about invoices.", provider=PROVIDER
)
support = Agent(
    name="support",
    system_prompt="You help shoppers with their orders. Be brief.",
    provider=PROVIDER,
    tools=[lookup_order, open_ticket, refund, handoff(billing)],
)
research = Agent(name="research", system_prompt="You collect facts.", provider=PROVIDER)
edit = Agent(name="edit", system_prompt="You make text clear and short.", provider=PROVIDER)
summarise = Agent(name="summarise", system_prompt="You summarise.", provider=PROVIDER)
analyse = Agent(name="analyse", system_prompt="You draw conclusions.", provider=PROVIDER)
editor = Agent(
    name="editor",
    system_prompt="You write reports. Have the facts researched, then let edit polish them.",
    provider=PROVIDER,
    tools=[look_into, edit.as_tool(description="Makes a text clear and short.")],
)
plan = Agent(name="plan", system_prompt="You make short plans.", provider=PROVIDER)
