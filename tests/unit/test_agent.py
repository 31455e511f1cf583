"""The memory page: agents that run by themselves."""

from __future__ import annotations

import asyncio

import pytest

from agentapi import Agent, InMemoryMemory, create_conversation_id, tool
from agentapi.errors import InvalidAgent, InvalidConversationId, InvalidMessage
from agentapi.memory import Memory


def remember(agent: Agent) -> Memory:
    return agent.memory


async def test_a_reply_is_text_and_the_memory_has_both() -> None:
    agent = Agent(system_prompt="You help.", provider="offline")
    assert await agent.run("hello") == "You said: hello"
    messages = [(m["role"], m["content"]) for m in agent.memory.messages]
    assert messages == [("user", "hello"), ("assistant", "You said: hello")]


async def test_the_history_is_used_and_can_be_reset() -> None:
    agent = Agent(provider="offline", memory=InMemoryMemory(conversation_id="user:1"))
    await agent.run("one")
    await agent.run("two")
    assert await agent.run("What did I say?") == "You said 2 things: one | two"
    agent.reset_memory()
    assert agent.memory.messages == []
    assert agent.memory.conversation_id == "user:1"
    assert await agent.run("What did I say?") == "Nothing."


async def test_five_agents_with_five_memories_never_mix() -> None:
    names = ("research", "edit", "summarise", "analyse", "plan")
    agents = [
        Agent(name=n, provider="offline", memory=InMemoryMemory(conversation_id=f"task:{n}"))
        for n in names
    ]
    for turn in range(5):
        await asyncio.gather(*(agent.run(f"{agent.name} {turn}") for agent in agents))
    for agent in agents:
        said = [m["content"] for m in agent.memory.messages if m["role"] == "user"]
        assert said == [f"{agent.name} {turn}" for turn in range(5)]


async def test_turns_of_one_agent_run_one_after_the_other() -> None:
    agent = Agent(provider="offline")
    await asyncio.gather(*(agent.run(str(number)) for number in range(20)))
    roles = [message["role"] for message in agent.memory.messages]
    assert roles == ["user", "assistant"] * 20


def test_an_agent_lives_longer_than_an_event_loop() -> None:
    agent = Agent(provider="offline")
    asyncio.run(agent.run("one"))
    assert asyncio.run(agent.run("What did I say?")) == "You said 1 thing: one"


@tool
def double(number: int) -> int:
    """Double it."""
    return number * 2


async def test_a_full_result_and_a_stream_with_tools() -> None:
    agent = Agent(provider="offline", tools=[double])
    result = await agent.run_turn('/double {"number": 21}')
    assert (result.text, result.steps) == ("double: 42", 3)
    assert [m.role for m in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.usage.total_tokens > 0
    pieces = [piece async for piece in agent.stream('/double {"number": 4} ')]
    assert "".join(pieces) == "double: 8"
    assert len(agent.memory.messages) == 8


async def test_a_stream_that_is_left_leaves_nothing() -> None:
    agent = Agent(provider="offline")
    stream = agent.stream("a b c d e f")
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert await agent.run("What did I say?") in ("Nothing.", "You said 1 thing: a b c d e f")


@pytest.mark.parametrize("message", ["", "  \n", None, 7, "\ud800"])
async def test_what_is_no_message(message: str) -> None:
    agent = Agent(provider="offline")
    with pytest.raises(InvalidMessage, match="message is"):
        await agent.run(message)
    assert agent.memory.messages == []


def test_what_is_no_agent() -> None:
    with pytest.raises(InvalidAgent, match=r"unknown provider 'nope': expected one of .*gemini"):
        Agent(provider="nope")
    with pytest.raises(InvalidAgent, match="not a valid agent name"):
        Agent(name="two words", provider="offline")
    with pytest.raises(InvalidAgent, match="max_steps is 0"):
        Agent(provider="offline", max_steps=0)
    with pytest.raises(InvalidAgent, match="messages is -1"):
        Agent(provider="offline", window=-1)
    with pytest.raises(InvalidAgent, match="two tools are named 'double'"):
        Agent(provider="offline", tools=[double, double])
    with pytest.raises(InvalidAgent, match="decorate it with @tool"):
        Agent(provider="offline", tools=[len])  # type: ignore[list-item]


def test_ids() -> None:
    assert create_conversation_id() != create_conversation_id()
    with pytest.raises(InvalidConversationId):
        InMemoryMemory(conversation_id="")
