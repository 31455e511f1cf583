"""What the gateway serves to the clients: one agent of each kind."""

from __future__ import annotations

from pydantic import BaseModel

from agentapi import Agent, tool


class City(BaseModel):
    """A city."""

    name: str
    population: int


@tool
def order_status(order_id: str) -> str:
    """Say where an order is."""
    return f"order {order_id} is on its way"


@tool(requires_approval=True)
def refund(order_id: str, amount: int) -> str:
    """Pay an order back."""
    return f"refunded {amount} for {order_id}"


PROMPT = "You are the shop's agent."

plain = Agent(name="plain", system_prompt=PROMPT, provider="openai")
tools = Agent(name="tools", system_prompt=PROMPT, provider="openai", tools=[order_status])
typed = Agent(name="typed", system_prompt=PROMPT, provider="openai", output_type=City)
approval = Agent(name="approval", system_prompt=PROMPT, provider="openai", tools=[refund])
