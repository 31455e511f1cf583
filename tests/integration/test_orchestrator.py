"""Producers against a real Redis, without workers; and eager mode without any server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from agentapi import Agent, Settings, TurnStatus, load_settings, tool
from agentapi.broker.wire import queue_of
from agentapi.errors import (
    ConversationBusy,
    InvalidConversationId,
    InvalidInput,
    InvalidMessage,
    LoginRefused,
    StoreFault,
    StoreUnavailable,
    TenantMismatch,
    TurnFailed,
    TurnNotFound,
    TurnTimeout,
    UnknownAgent,
)
from agentapi.redis.keys import conversation_keys
from orchestrator import AsyncOrchestrator, CancelOutcome, Orchestrator, TurnRequest
from orchestrator.stack.processes import free_port

SECRET = "a-word-that-only-the-user-said"


@tool
def look(what: str) -> str:
    """Look."""
    return f"saw {what}"


support = Agent(name="support", provider="offline", tools=[look])


@pytest.fixture
def eager() -> Iterator[Orchestrator]:
    with Orchestrator.eager(agents=[support]) as running:
        yield running


@pytest.fixture
def producer(settings_for: Callable[..., Settings]) -> Iterator[Orchestrator]:
    with Orchestrator(settings_for(inbox_limit=3)) as running:
        yield running


def test_eager_runs_the_same_protocol(eager: Orchestrator) -> None:
    turn = eager.enqueue("support", '/look {"what": "it"}', conversation_id="user:1")
    assert turn.status() is TurnStatus.COMPLETED
    assert turn.result().text == "look: saw it"
    events = [event.type.value for event in turn.events()]
    assert events == ["started", "step", "step", "completed"]
    again = eager.enqueue(support, "What did I say?", conversation_id="user:1")
    assert again.result().text == 'You said 1 thing: /look {"what": "it"}'
    assert [m["role"] for m in eager.history("user:1")].count("user") == 2
    assert eager.reset("user:1") == 6
    assert eager.history("user:1") == []


def test_eager_carries_out_many_turns_of_one_conversation(eager: Orchestrator) -> None:
    requests = [
        TurnRequest(agent="support", message=str(number), conversation_id="user:1")
        for number in range(100)
    ]
    handles = eager.enqueue_many(requests)
    assert [handle.result().text for handle in handles] == [f"You said: {n}" for n in range(100)]


def test_eager_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_EAGER", "true")
    monkeypatch.setenv("AGENTAPI_AGENTS", "examples.agents")
    with Orchestrator() as orchestrator:
        assert orchestrator.enqueue("plan", "hi").result(timeout=5).text == "You said: hi"


def test_an_agent_that_is_not_registered_here(eager: Orchestrator) -> None:
    with pytest.raises(
        UnknownAgent, match=r"agent 'sales' is not registered here \(registered: support\)"
    ):
        eager.enqueue("sales", "hi")


async def test_async_is_the_same_producer() -> None:
    async with AsyncOrchestrator.eager(agents=[support]) as orchestrator:
        turns = await asyncio.gather(
            *(orchestrator.enqueue("support", str(n), conversation_id=f"c{n}") for n in range(20))
        )
        results = await asyncio.gather(*(turn.result(timeout=5) for turn in turns))
        assert [result.text for result in results] == [f"You said: {n}" for n in range(20)]
        assert await turns[0].status() is TurnStatus.COMPLETED
        events = [event.type.value async for event in turns[0].events()]
        assert events == ["started", "completed"]
        assert len(await orchestrator.history("c0")) == 2
        assert (await (await orchestrator.turn(turns[3].turn_id)).info()).input == "3"


@pytest.mark.parametrize("message", ["", " \n ", "x" * 300_000, None, "\udfff"])
def test_messages_that_are_refused_leave_nothing(producer: Orchestrator, message: str) -> None:
    with pytest.raises(InvalidMessage, match="message "):
        producer.enqueue("support", message, conversation_id="user:1")
    client = redis.Redis.from_url(producer.settings.redis_url)
    assert client.dbsize() == 0


def test_other_bad_input(producer: Orchestrator) -> None:
    with pytest.raises(InvalidConversationId):
        producer.enqueue("support", "hi", conversation_id="a\nb")
    with pytest.raises(InvalidInput, match="metadata is not valid"):
        producer.enqueue("support", "hi", metadata={"x": object()})
    with pytest.raises(InvalidInput, match="metadata has"):
        producer.enqueue("support", "hi", metadata={"x": "y" * 20_000})
    with pytest.raises(InvalidInput, match="idempotency_key"):
        producer.enqueue("support", "hi", idempotency_key="")
    with pytest.raises(InvalidInput, match="not a turn id"):
        producer.turn("nonsense")
    with pytest.raises(TurnNotFound):
        producer.turn("001-" + "0" * 32)


def test_a_key_given_twice_is_one_turn(producer: Orchestrator) -> None:
    first = producer.enqueue("support", "hi", idempotency_key="order-7")
    again = producer.enqueue("support", "hi", idempotency_key="order-7")
    assert (again.turn_id, again.conversation_id) == (first.turn_id, first.conversation_id)
    other = producer.enqueue("support", "hi", idempotency_key="order-8")
    assert other.turn_id != first.turn_id


def test_a_full_inbox_and_another_tenant(producer: Orchestrator) -> None:
    request = TurnRequest(agent="support", message="hi", conversation_id="c", tenant_id="acme")
    with pytest.raises(ConversationBusy):
        producer.enqueue_many([request] * 4)
    with pytest.raises(TenantMismatch):
        producer.enqueue("support", "hi", conversation_id="c", tenant_id="evil")


def test_nothing_that_people_say_is_in_the_broker(producer: Orchestrator) -> None:
    turn = producer.enqueue("support", SECRET, conversation_id="user:1")
    client = redis.Redis.from_url(producer.settings.redis_url)
    queue = f"agentapi:broker:{queue_of(turn.turn_id, producer.settings.queues)}"
    [message] = client.lrange(queue, 0, -1)
    assert turn.turn_id.encode() in message
    for key in client.scan_iter("agentapi:broker:*"):
        assert SECRET.encode() not in (client.dump(key) or b"")


def test_a_wait_without_workers_and_a_cancelled_wait(producer: Orchestrator) -> None:
    turn = producer.enqueue("support", "hi")
    started = time.monotonic()
    with pytest.raises(TurnTimeout, match="and continues"):
        turn.result(timeout=0.3)
    assert time.monotonic() - started < 30
    assert turn.status() is TurnStatus.QUEUED
    assert turn.cancel() is CancelOutcome.CANCELLED
    with pytest.raises(TurnFailed, match="was cancelled"):
        turn.result(timeout=5)


async def test_many_waits_take_one_connection(settings_for: Callable[..., Settings]) -> None:
    settings = settings_for()
    client = redis.Redis.from_url(settings.redis_url)
    # Somebody may still wait there since an earlier test.
    others = {connection["id"] for connection in client.client_list()}
    async with AsyncOrchestrator(settings) as orchestrator:
        requests = [TurnRequest(agent="support", message="hi") for _ in range(300)]
        turns = await orchestrator.enqueue_many(requests)
        waits = [asyncio.create_task(turn.result(timeout=100)) for turn in turns]

        def blocked() -> int:
            mine = [found for found in client.client_list() if found["id"] not in others]
            return sum("b" in connection["flags"] for connection in mine)

        async with asyncio.timeout(60):
            while blocked() == 0:  # noqa: ASYNC110 - Redis cannot tell when
                await asyncio.sleep(0.05)
        assert blocked() <= 1
        for turn in turns:
            await turn.cancel()
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end).__name__ for end in ends} == {"TurnCancelled"}
    client.close()


def test_redis_out_of_reach(caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://user:hunter2@127.0.0.1:{free_port()}/0"
    with Orchestrator(load_settings(redis_url=url, redis_timeout=1)) as orchestrator:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="is out of reach") as caught:
            orchestrator.enqueue("support", "hi")
        assert time.monotonic() - started < 30
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caplog.text


def test_a_broker_out_of_reach_loses_nothing(
    settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    broker = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    with Orchestrator(settings_for(broker_url=broker, redis_timeout=1)) as orchestrator:
        turn = orchestrator.enqueue("support", "hi", conversation_id="c")
        assert turn.status() is TurnStatus.QUEUED
        assert orchestrator.store.overdue() == []
    assert "wakeups.delayed" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_wrong_password_and_a_full_redis(
    redis_url: str, settings_for: Callable[..., Settings]
) -> None:
    client = redis.Redis.from_url(redis_url)
    with Orchestrator(settings_for()) as orchestrator:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailable, match="out of memory"):
                orchestrator.enqueue("support", "x" * 200_000)
        finally:
            client.config_set("maxmemory", "0")
    wrong = redis_url.replace("redis://", "redis://nobody:hunter2@")
    with Orchestrator(load_settings(redis_url=wrong)) as orchestrator:
        with pytest.raises(LoginRefused, match="refuses the user or password") as caught:
            orchestrator.enqueue("support", "hi")
        assert "hunter2" not in str(caught.value)


def test_a_key_of_the_wrong_type_is_a_fault_that_waiting_does_not_mend(
    redis_url: str, settings_for: Callable[..., Settings]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(conversation_keys("c").meta, "secret")
    with (
        Orchestrator(settings_for()) as orchestrator,
        pytest.raises(StoreFault, match="WRONGTYPE") as caught,
    ):
        orchestrator.enqueue("support", "hi", conversation_id="c")
    assert "secret" not in str(caught.value)
