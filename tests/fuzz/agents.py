"""Agents of the worker process that clients reach through the gateway."""

from __future__ import annotations

from agentapi import Agent, tool


@tool(requires_approval=True)
def sign(text: str) -> str:
    """Sign something."""
    return f"signed {text}"


innocent = Agent(name="innocent", provider="offline")
signer = Agent(name="signer", provider="offline", tools=[sign])
