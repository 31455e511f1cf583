"""The agent of the benchmarks: it speaks to the provider that OPENAI_BASE_URL names."""

from agentapi import Agent

talker = Agent(name="talker", provider="openai", model="fake")
