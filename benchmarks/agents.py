"""The agents of the benchmarks."""

from agentapi import Agent, tool


@tool
async def look(what: str) -> str:
    """Look at something."""
    return f"{what} is there"


talker = Agent(name="talker", provider="openai", model="fake")
"""Uses the provider at OPENAI_BASE_URL."""

teller = Agent(
    name="teller", provider="openai", model="fake", options={"max_completion_tokens": 1000}
)
"""Like `talker`, with answers of a thousand tokens."""

plain = Agent(name="plain", provider="offline", window=20)
"""Answers immediately, or after AGENTAPI_OFFLINE_DELAY."""

looker = Agent(name="looker", provider="offline", window=20, tools=[look])
"""Like `plain`, with a tool."""
