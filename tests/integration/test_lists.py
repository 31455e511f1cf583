"""What producers list, change in bulk and follow, against a real Redis."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from agentapi import Agent, Settings, TurnStatus
from agentapi.conversation.window import Window
from agentapi.errors import InvalidConversationId, InvalidInput, TenantMismatch
from agentapi.redis.keys import conversation_keys
from agentapi.stores import Claim, Ending
from agentapi.turns import TurnError
from orchestrator import AsyncOrchestrator, Orchestrator, TurnEnd, TurnHandle

support = Agent(name="support", provider="offline")


@pytest.fixture(params=["redis", "eager"])
def producer(
    request: pytest.FixtureRequest, settings_for: Callable[..., Settings]
) -> Iterator[Orchestrator]:
    if request.param == "redis":
        made = Orchestrator(settings_for())
    else:
        made = Orchestrator.eager(agents=[support])
    with made as running:
        yield running


@pytest.fixture
def on_redis(settings_for: Callable[..., Settings]) -> Iterator[Orchestrator]:
    with Orchestrator(settings_for()) as running:
        yield running


def claim(producer: Orchestrator, turn: TurnHandle) -> Claim:
    claimed = producer.store.claim(
        turn.conversation_id, turn.turn_id, owner="w", token=turn.turn_id, window=Window()
    )
    assert isinstance(claimed, Claim)
    return claimed


def fail(producer: Orchestrator, conversation: str, code: str = "broken") -> TurnHandle:
    turn = producer.enqueue("support", "hi", conversation_id=conversation)
    ending = Ending(status=TurnStatus.FAILED, error=TurnError(code=code, message="it broke"))
    producer.store.commit(claim(producer, turn).lease, ending)
    return turn


def test_turns_and_conversations(producer: Orchestrator) -> None:
    turns = [producer.enqueue("support", "hi", user_id="ann") for _ in range(5)]
    ids = {turn.turn_id for turn in turns}
    assert {turn.turn_id for turn in producer.turns(agent="support")} == ids
    assert {turn.turn_id for turn in producer.turns(user_id="ann", status=TurnStatus)} == ids
    assert list(producer.turns(status=["failed", TurnStatus.CANCELLED])) == []
    an_hour = timedelta(hours=1)
    assert len(list(producer.turns(since=datetime.now(UTC) - an_hour))) == 5
    assert list(producer.turns(until=datetime.now(UTC) - an_hour)) == []
    found = [len(page.items) for page in producer.turns().pages(2)]
    assert sum(found) == 5
    page = producer.turns().page(2)
    assert len(page.items) == 2
    rest = producer.turns().page(100, page.cursor)
    assert (len(rest.items), rest.cursor) == (3, None)
    conversations = {each.conversation_id for each in producer.conversations(agent="support")}
    assert conversations == {turn.conversation_id for turn in turns}
    assert list(producer.approvals()) == []


def test_filters_that_are_not_valid(producer: Orchestrator) -> None:
    bad: list[dict[str, Any]] = [
        {"status": "done"},
        {"status": 7},
        {"agent": 7},
        {"since": datetime(2026, 1, 1)},
        {"since": "yesterday"},
        {"since": float("nan")},
        {"until": True},
        {"colour": "red"},
    ]
    for filters in bad:
        with pytest.raises(InvalidInput):
            producer.turns(**filters)
    with pytest.raises(InvalidConversationId):
        producer.turns(conversation_id="")
    with pytest.raises(InvalidInput, match="busy"):
        producer.conversations(busy="yes")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="colour"):
        producer.ends(colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="position"):
        next(producer.ends("nonsense"))


def test_retrying_and_cancelling_many(on_redis: Orchestrator) -> None:
    failed = {fail(on_redis, f"f:{number}").turn_id for number in range(5)}
    other = fail(on_redis, "other", "refused")
    with pytest.raises(InvalidInput, match="at least one"):
        on_redis.retry_all()
    with pytest.raises(InvalidInput, match="completed"):
        on_redis.retry_all(status="completed")
    with pytest.raises(InvalidInput, match="limit"):
        on_redis.retry_all(since=0, limit=0)
    dry = on_redis.retry_all(error_code="broken", dry_run=True)
    assert (set(dry.turn_ids), dry.dry_run, dict(dry.refused)) == (failed, True, {})
    assert len(list(on_redis.turns(status="failed"))) == 6
    assert len(on_redis.retry_all(error_code="broken", limit=2).turn_ids) == 2
    assert len(on_redis.retry_all(error_code="broken").turn_ids) == 3
    assert [turn.turn_id for turn in on_redis.turns(status="failed")] == [other.turn_id]
    assert set(on_redis.cancel_all(agent="support", dry_run=True).turn_ids) == failed
    assert set(on_redis.cancel_all(agent="support").turn_ids) == failed
    assert {turn.turn_id for turn in on_redis.turns(status="cancelled")} == failed


def test_a_turn_that_is_refused_does_not_keep_the_others(on_redis: Orchestrator) -> None:
    taken, plain = fail(on_redis, "taken"), fail(on_redis, "plain")
    # Its conversation was forgotten, and begun again by another tenant.
    redis.Redis.from_url(on_redis.settings.redis_url).delete(conversation_keys("taken").meta)
    on_redis.enqueue("support", "hi", conversation_id="taken", tenant_id="acme")
    result = on_redis.retry_all(status="failed")
    assert result.turn_ids == (plain.turn_id,)
    assert isinstance(result.refused[taken.turn_id], TenantMismatch)


def test_ends_from_the_start_and_from_a_position(producer: Orchestrator) -> None:
    done = [producer.enqueue("support", "hi", tenant_id=t) for t in ("acme", "acme", "other")]
    for turn in done:
        turn.cancel()
    ends = list(producer.ends("start", timeout=0))
    assert {end.turn_id for end in ends} == {turn.turn_id for turn in done}
    assert len(list(producer.ends(ends[0].position, timeout=0))) == 2
    assert len(list(producer.ends("start", timeout=0, tenant_id="acme"))) == 2
    assert list(producer.ends("start", timeout=0, tenant_id="", agent="support")) == []
    assert list(producer.ends("start", timeout=0, status="failed")) == []
    assert len(list(producer.ends(datetime.now(UTC) - timedelta(hours=1), timeout=0))) == 3
    assert list(producer.ends(timeout=0)) == []


def test_a_follower_gets_what_ends_after_its_call(on_redis: Orchestrator) -> None:
    following = on_redis.ends(timeout=60)
    turns = [on_redis.enqueue("support", "hi") for _ in range(20)]
    found: list[TurnEnd] = []

    def follow() -> None:
        for end in following:
            found.append(end)
            if len(found) == 20:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    for turn in turns:
        turn.cancel()
    reader.join(timeout=60)
    assert sorted(end.turn_id for end in found) == sorted(turn.turn_id for turn in turns)


async def test_the_async_producer_lists_and_follows(settings_for: Callable[..., Settings]) -> None:
    async with AsyncOrchestrator(settings_for()) as producer:
        turns = [await producer.enqueue("support", "hi") for _ in range(5)]
        ids = {turn.turn_id for turn in turns}
        assert {turn.turn_id async for turn in producer.turns(agent="support")} == ids
        assert len((await producer.turns().page(2)).items) == 2
        assert sum([len(page.items) async for page in producer.turns().pages(2)]) == 5
        assert len([each async for each in producer.conversations()]) == 5
        assert [call async for call in producer.approvals()] == []
        ready = asyncio.Event()

        async def follow(**filters: Any) -> set[str]:
            found: set[str] = set()
            ready.set()
            async with asyncio.timeout(60):
                async for end in producer.ends(time.time() - 60, **filters):
                    found.add(end.turn_id)
                    if found >= ids:
                        break
            return found

        followers = [asyncio.create_task(follow(agent="support")) for _ in range(10)]
        await ready.wait()
        result = await producer.cancel_all(since=0)
        assert set(result.turn_ids) == ids
        assert await asyncio.gather(*followers) == [ids] * 10
        assert (await producer.retry_all(since=0)).turn_ids == ()
