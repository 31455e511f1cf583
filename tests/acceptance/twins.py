"""What a worker refuses."""

from agentapi import Agent

one = Agent(name="twin", provider="offline")
other = Agent(name="twin", provider="offline")
