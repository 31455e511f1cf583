"""Agents with a memory: one conversation, several agents, tools and streams, without a model.

``AGENTAPI_REDIS_URL=redis://... python -m examples.memory_page`` also shows a memory that several
processes share.
"""

from __future__ import annotations

import asyncio
import os

from agentapi import Agent, InMemoryMemory, RedisMemory, create_conversation_id, tool

PROVIDER = os.environ.get("AGENTAPI_EXAMPLE_PROVIDER", "offline")


@tool
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


async def one_conversation() -> None:
    memory = InMemoryMemory(conversation_id=create_conversation_id())
    agent = Agent(system_prompt="You help.", provider=PROVIDER, memory=memory)
    print(await agent.run("My name is Ada."))
    print(await agent.run("What did I say?"))
    for message in agent.memory.messages:
        print(f"  {message['role']}: {message['content']}")
    agent.reset_memory()
    print(len(agent.memory.messages), "messages after the reset")


async def five_agents() -> None:
    names = ("research", "edit", "summarise", "analyse", "plan")
    agents = [
        Agent(
            name=name,
            system_prompt=f"You {name}.",
            provider=PROVIDER,
            memory=InMemoryMemory(conversation_id=f"task:{name}"),
        )
        for name in names
    ]
    for reply in await asyncio.gather(*(agent.run(f"Please {agent.name}.") for agent in agents)):
        print(reply)


async def tools_and_streams() -> None:
    agent = Agent(provider=PROVIDER, tools=[add])
    result = await agent.run_turn('/add {"first": 2, "second": 3}')
    print(result.text, f"({result.steps} steps, {result.usage.total_tokens} tokens)")
    async for text in agent.stream("Say something long."):
        print(text, end="", flush=True)
    print()


async def shared_by_processes(redis_url: str) -> None:
    """Any process that opens the same id sees the same history."""

    def open_memory() -> RedisMemory:
        return RedisMemory(
            redis_url=redis_url,
            conversation_id="tenant:acme:user:42",
            user_id="42",
            tenant_id="acme",
            ttl_seconds=3600,
        )

    await Agent(provider=PROVIDER, memory=open_memory()).run("Hello from one agent.")
    print(await Agent(provider=PROVIDER, memory=open_memory()).run("What was said?"))
    open_memory().reset()


async def main() -> None:
    await one_conversation()
    await five_agents()
    await tools_and_streams()
    if redis_url := os.environ.get("AGENTAPI_REDIS_URL"):
        await shared_by_processes(redis_url)


if __name__ == "__main__":
    asyncio.run(main())
