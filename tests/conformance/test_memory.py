"""Both memories: what one process writes, the same memory and others of its id see."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest

from agentapi import Agent, InMemoryMemory, Memory, RedisMemory
from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.conversation.window import Window
from agentapi.errors import InvalidInput, TenantMismatch
from tests.faults import until

TURN: list[Message] = [UserMessage(content="hi"), AssistantMessage(content="yo")]


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Callable[..., Memory]:
    if request.param == "memory":
        return InMemoryMemory
    url = request.getfixturevalue("redis_url")
    return lambda **given: RedisMemory(redis_url=url, **given)


def test_messages_are_plain_dicts_oldest_first(make: Callable[..., Memory]) -> None:
    memory = make(conversation_id="tenant:acme:user:42", user_id="42", tenant_id="acme")
    assert memory.messages == []
    memory.append(TURN)
    memory.append(TURN)
    assert [(m["role"], m["content"]) for m in memory.messages] == [
        ("user", "hi"),
        ("assistant", "yo"),
    ] * 2
    assert list(memory.load(Window(messages=None))) == TURN * 2
    assert (memory.user_id, memory.tenant_id) == ("42", "acme")
    memory.reset()
    assert memory.messages == []


def test_an_id_is_made_when_none_is_given(make: Callable[..., Memory]) -> None:
    assert make().conversation_id != make().conversation_id


async def test_five_agents_with_five_memories_never_mix(make: Callable[..., Memory]) -> None:
    agents = [Agent(provider="offline", memory=make(conversation_id=f"c:{n}")) for n in range(5)]
    for turn in range(3):
        await asyncio.gather(*(a.run(f"{a.memory.conversation_id} {turn}") for a in agents))
    for agent in agents:
        said = [m["content"] for m in agent.memory.messages if m["role"] == "user"]
        assert said == [f"{agent.memory.conversation_id} {turn}" for turn in range(3)]


def test_another_process_sees_the_same_history(redis_url: str) -> None:
    memory = RedisMemory(redis_url=redis_url, conversation_id="user:1")
    agent = Agent(provider="offline", memory=memory)
    asyncio.run(agent.run("from the first process"))
    program = (
        "import asyncio\nfrom agentapi import Agent, RedisMemory\n"
        f"memory = RedisMemory(redis_url={redis_url!r}, conversation_id='user:1')\n"
        "print(asyncio.run(Agent(provider='offline', memory=memory).run('What did I say?')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=True
    )
    assert done.stdout.strip() == "You said 1 thing: from the first process"
    assert len(memory.messages) == 4


def test_a_conversation_is_refused_under_another_tenant(redis_url: str) -> None:
    def memory(tenant: str | None) -> RedisMemory:
        return RedisMemory(redis_url=redis_url, conversation_id="c", tenant_id=tenant)

    memory("acme").append(TURN)
    for other in (memory("evil"), memory(None)):
        with pytest.raises(TenantMismatch):
            _ = other.messages
        with pytest.raises(TenantMismatch):
            other.append(TURN)
        with pytest.raises(TenantMismatch):
            other.reset()
    assert len(memory("acme").messages) == 2


def test_an_idle_conversation_is_forgotten(redis_url: str) -> None:
    memory = RedisMemory(redis_url=redis_url, conversation_id="c", ttl_seconds=600)
    memory.append(TURN)
    assert len(memory.messages) == 2
    brief = RedisMemory(redis_url=redis_url, conversation_id="c", ttl_seconds=0.05)
    brief.append(TURN)
    until(lambda: memory.messages == [], what="the end of its idle time")
    with pytest.raises(InvalidInput, match="ttl_seconds"):
        RedisMemory(redis_url=redis_url, ttl_seconds=0)
