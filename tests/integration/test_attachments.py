"""Images and files on a real Redis: a worker's turns, a memory, idle time, and copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from agentapi import Agent, File, Image, RedisMemory, TurnStatus
from agentapi.redis.keys import conversation_keys
from agentapi.testing import ScriptedProvider, says
from tests.integration.fleet import Fleet

PNG = b"\x89PNG\x00\xff bytes"
PICTURE = Image(data=PNG, media_type="image/png")
C = "user:1"
KEYS = conversation_keys(C)

MakeFleet = Callable[..., Fleet]
Script = Callable[..., ScriptedProvider]


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def sees() -> Agent:
    return Agent(name="sees", provider="openai")


def test_a_worker_loads_what_the_window_needs(
    make_fleet: MakeFleet, script: Script, client: redis.Redis
) -> None:
    model = script(says("A cat."), says("Still a cat."), says("What cat?"))
    fleet = make_fleet(agents=[sees(), Agent(name="short", provider="openai", window=1)])
    turn = fleet.producer.enqueue("sees", ["Look", PICTURE], conversation_id=C).info()
    assert fleet.execute(turn)["status"] == "completed"
    assert not any(PNG in bytes(m) for m in client.lrange(KEYS.messages, 0, -1))  # type: ignore[arg-type]
    assert client.hvals(KEYS.blobs) == [PNG]
    # Sent again while it is in the window, and not read when it is not.
    for agent, wanted in (("sees", [PNG]), ("short", [])):
        fleet.execute(fleet.enqueue(agent, "Sure?", conversation_id=C))
        assert list(model.requests[-1].blobs.values()) == wanted


async def test_a_memory_and_the_workers_have_the_same_bytes(
    make_fleet: MakeFleet, script: Script, redis_url: str, client: redis.Redis
) -> None:
    model = script(says("A cat."), says("Still a cat."), says("Yes."))
    memory = RedisMemory(redis_url=redis_url, conversation_id=C)
    agent = Agent(provider="openai", memory=memory)
    await agent.run(["Look", PICTURE])
    await agent.run("Sure?")
    assert list(model.requests[-1].blobs.values()) == [PNG]
    fleet = make_fleet(agents=[sees()])
    fleet.execute(fleet.enqueue("sees", "Really?", conversation_id=C))
    assert list(model.requests[-1].blobs.values()) == [PNG]
    agent.reset_memory()
    assert not client.exists(KEYS.blobs)


def test_a_memory_that_is_reset_leaves_bytes_to_turns_that_wait(
    make_fleet: MakeFleet, script: Script, redis_url: str
) -> None:
    model = script(says("A bill."))
    fleet = make_fleet(agents=[sees()])
    paper = File(data=b"%PDF", media_type="application/pdf", name="bill.pdf")
    turn = fleet.producer.enqueue("sees", ["Look", paper], conversation_id=C).info()
    RedisMemory(redis_url=redis_url, conversation_id=C).reset()
    assert fleet.execute(turn)["status"] == "completed"
    assert list(model.requests[-1].blobs.values()) == [b"%PDF"]


def test_they_expire_with_an_idle_conversation(
    make_fleet: MakeFleet, script: Script, client: redis.Redis
) -> None:
    script(says("A cat."))
    fleet = make_fleet(agents=[sees()], memory_ttl=3600)
    turn = fleet.producer.enqueue("sees", ["Look", PICTURE], conversation_id=C).info()
    assert client.pttl(KEYS.blobs) == -1
    fleet.execute(turn)
    assert 0 < int(client.pttl(KEYS.blobs)) <= 3_600_000
    following = fleet.enqueue("sees", "Sure?", conversation_id=C)
    assert following.status is TurnStatus.QUEUED
    assert client.pttl(KEYS.blobs) == -1
