"""The agents of the demo: a support desk and the memory page's five.

They use the `offline` provider, or the one that AGENTAPI_EXAMPLE_PROVIDER names.
"""

from __future__ import annotations

import os

from agentapi import Agent, ToolContext, tool

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
    # A ticket system that takes an idempotency key opens one ticket however often it is asked.
    return {"ticket": context.idempotency_key[-8:], "subject": subject}


support = Agent(
    name="support",
    system_prompt="You help shoppers with their orders. Be brief.",
    provider=PROVIDER,
    tools=[lookup_order, open_ticket],
)
research = Agent(name="research", system_prompt="You collect facts.", provider=PROVIDER)
edit = Agent(name="edit", system_prompt="You make text clear and short.", provider=PROVIDER)
summarise = Agent(name="summarise", system_prompt="You summarise.", provider=PROVIDER)
analyse = Agent(name="analyse", system_prompt="You find what follows.", provider=PROVIDER)
plan = Agent(name="plan", system_prompt="You make plans of few steps.", provider=PROVIDER)
