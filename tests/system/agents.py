"""Agents for the pages under test."""

from __future__ import annotations

import asyncio

from agentapi import Agent, Delegate, delegate, register_provider, tool
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider


class FaultyProvider(OfflineProvider):
    """Fails each turn."""

    name = "failing"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Fail."""
        raise ZeroDivisionError("a fault of this provider")


register_provider("failing", FaultyProvider)
register_provider("typist", lambda: OfflineProvider(chunk_delay=0.05))


@tool(requires_approval=True)
def refund(order_id: str, amount: float) -> str:
    """Refund money."""
    return f"{amount:.2f} euros of order {order_id} were refunded"


@tool(idempotent=True)
async def nap(seconds: float) -> str:
    """Sleep; may be repeated."""
    await asyncio.sleep(seconds)
    return "rested"


@tool
def echo(text: str) -> str:
    """Say it back."""
    return text


@tool
def unroll(text: str, times: int) -> str:
    """Say it many times."""
    return text * times


@tool
def fan_out(messages: list[str]) -> list[Delegate]:
    """Ask the agent `desk` each of these."""
    return [delegate("desk", message, timeout=60) for message in messages]


desk = Agent(name="desk", provider="offline", tools=[refund, nap, echo, unroll, fan_out])
slow = Agent(name="slow", provider="typist")
faulty = Agent(name="faulty", provider="failing")
