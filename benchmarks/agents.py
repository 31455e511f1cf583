"""The agents of the benchmarks."""

from agentapi import Agent, tool


@tool
async def look(what: str) -> str:
    """Look at something."""
    return f"{what} is there"


talker = Agent(name="talker", provider="openai", model="fake")
"""Speaks to the provider that OPENAI_BASE_URL names."""

teller = Agent(
    name="teller", provider="openai", model="fake", options={"max_completion_tokens": 1000}
)
"""As `talker`, of a thousand tokens."""

plain = Agent(name="plain", provider="offline", window=20)
"""Answers at once, or after AGENTAPI_OFFLINE_DELAY."""

looker = Agent(name="looker", provider="offline", window=20, tools=[look])
"""As `plain`, with a tool."""
