"""What a worker refuses."""

from agentapi import Agent, InMemoryMemory

private = Agent(name="private", provider="offline", memory=InMemoryMemory())
