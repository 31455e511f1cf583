"""Agents for traces: one delegates, waits for an approval, and can lose its worker."""

from __future__ import annotations

import asyncio

from agentapi import Agent, ToolContext, tool


@tool
async def look_up(word: str) -> str:
    """Find out what a word means."""
    return f"{word} means much"


@tool(idempotent=True)
async def dig(context: ToolContext) -> str:
    """Dig; the first attempt takes for ever."""
    if context.attempt == 1:
        await asyncio.sleep(600)
    return "dug"


@tool(requires_approval=True)
def sign(paper: str) -> str:
    """Sign."""
    return f"signed {paper}"


@tool
def burn(paper: str) -> str:
    """Burn, and fail."""
    raise RuntimeError(f"{paper} does not burn")


scout = Agent(
    name="scout", system_prompt="You know every larkspur.", provider="offline", tools=[look_up]
)
boss = Agent(
    name="boss",
    system_prompt="You lead, says the larkspur.",
    provider="offline",
    tools=[scout.as_tool(), sign, dig, burn],
)
