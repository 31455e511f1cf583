"""The connections that an agent opens when it runs in the caller's own process."""

from __future__ import annotations

from agentapi.agents.definition import AgentDefinition
from agentapi.agents.registry import asked_by
from agentapi.providers import providers
from agentapi.tools.mcp.server import hold_sessions, release_sessions


def hold_clients(holder: object, agent: AgentDefinition) -> None:
    """Record that a holder uses the clients of an agent, and of all agents that it may ask.

    Args:
        holder: The user of the clients, until `release_clients`.
        agent: The agent.
    """
    seen = {id(agent): agent}
    waiting = [agent]
    while waiting:
        for other in asked_by(waiting.pop()):
            if id(other) not in seen:
                seen[id(other)] = other
                waiting.append(other)
    for each in seen.values():
        providers.hold(holder, {choice.provider for choice in each.choices})
        hold_sessions(holder, each.tool_sources)


async def release_clients(holder: object) -> None:
    """Close the running loop's clients that no other holder uses."""
    try:
        await release_sessions(holder)
    finally:
        await providers.release(holder)
