"""Agents whose models have a small context and short replies."""

from __future__ import annotations

from agentapi import Agent

AGENTS = {
    provider: Agent(
        name=provider,
        provider=provider,
        options={"max_tokens": 10} if provider == "offline" else {},
        on_incomplete="continue",
        max_continuations=20,
    )
    for provider in ("openai", "openrouter", "gemini", "offline")
}

openai, openrouter, gemini, offline = AGENTS.values()
