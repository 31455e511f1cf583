"""Parts of the gateway against a real Redis, without workers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager

import pytest
import redis
from starlette.types import Message

from agentapi.conversation.window import Window
from agentapi.errors import StoreUnavailable, TurnNotFound
from agentapi.ids import create_turn_id
from agentapi.redis.keys import SHARES_KEY
from agentapi.stores import Claim, Ending, Lease, NewEvent
from agentapi.turns import Event, EventType, TurnStatus
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.health import _store
from orchestrator.gateway.http.errors import RateLimited
from orchestrator.gateway.http.sse import EventStream, frame
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.turn_submission import Existing, NewMessage
from orchestrator.gateway.turn_submission import accept as let_in
from orchestrator.gateway.view import TenantView
from orchestrator.stack.processes import free_port
from tests.faults import until

Make = Callable[..., GatewaySettings]


@asynccontextmanager
async def running(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    gateway = Gateway(settings)
    gateway.follower.start()
    try:
        yield gateway
    finally:
        await gateway.aclose()


def claimed(gateway: Gateway, turn_id: str, conversation_id: str) -> Claim:
    claim = gateway.orchestrator.store.claim(
        conversation_id, turn_id, owner="w", token=turn_id, window=Window()
    )
    assert isinstance(claim, Claim)
    return claim


def emit(gateway: Gateway, lease: Lease, batches: Iterable[int]) -> None:
    for batch in batches:
        event = NewEvent(type=EventType.DELTA, data={"text": str(batch)})
        gateway.orchestrator.store.emit([(lease, batch, [event])])


async def accept(view: TenantView, conversation_id: str = "c") -> str:
    message = NewMessage(agent="a", text="hi", idempotency_key="k")
    return await let_in(view, message, Existing(conversation_id=conversation_id))


async def test_a_thousand_turns_are_followed_over_one_connection(
    gateway_settings_for: Make,
) -> None:
    settings = gateway_settings_for()
    client = redis.Redis.from_url(settings.redis_url)
    # Somebody may still wait there since an earlier test.
    others = {found["id"] for found in client.client_list()}
    async with running(settings) as gateway:
        view = TenantView(gateway, "t")
        turn_ids = [create_turn_id("c", str(number)) for number in range(1000)]

        async def follow(turn_id: str) -> list[int]:
            numbers: list[int] = []
            async with aclosing(gateway.follower.follow(turn_id, -1, max_wait=30)) as following:
                async for events in following:
                    assert not isinstance(events, Closed)
                    numbers += [event.number for event in events]
            return numbers

        waits = [asyncio.create_task(follow(turn_id)) for turn_id in turn_ids]

        def blocked() -> int:
            mine = [found for found in client.client_list() if found["id"] not in others]
            return sum("b" in found["flags"] for found in mine)

        await asyncio.to_thread(until, blocked)
        assert blocked() <= 1
        for turn_id in turn_ids:
            key = f"agentapi:{{{turn_id[:3]}}}:t:{turn_id}:events"
            client.xadd(key, {"type": "delta", "data": '{"text": "x"}'}, id="1-0")
            client.xadd(key, {"type": "completed", "data": "{}"}, id="2-0")
        assert await asyncio.gather(*waits) == [[0, 1]] * 1000
        assert view.internal("c") == "gw:t:c"
        client.close()


async def test_a_reader_that_is_too_slow_is_ended_where_it_is(gateway_settings_for: Make) -> None:
    async with running(gateway_settings_for(gateway_stream_buffer=5)) as gateway:
        view = TenantView(gateway, "t")
        turn_id = await accept(view)
        lease = claimed(gateway, turn_id, "gw:t:c").lease
        turn = await view.turn(turn_id)
        seen: list[Event | Closed] = []
        async with aclosing(view.follow(turn.turn_id, -1)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    seen.append(found)
                    break
                seen += found
                # The first is past, the second comes while it follows; then it dawdles.
                if len(seen) == 1:
                    emit(gateway, lease, [1])
                elif len(seen) == 2:
                    emit(gateway, lease, range(2, 21))
                    [buffer] = gateway.follower._buffers
                    async with asyncio.timeout(60):
                        while buffer.closed is None:  # noqa: ASYNC110 - nobody tells
                            await asyncio.sleep(0.01)
        assert seen[-1] is Closed.SLOW
        numbers = [event.number for event in seen if isinstance(event, Event)]
        assert numbers == list(range(len(numbers)))
        assert 2 < len(numbers) < 21
        # From there the rest is read, each event once.
        gateway.orchestrator.store.commit(lease, Ending(status=TurnStatus.CANCELLED))
        async with aclosing(view.follow(turn.turn_id, numbers[-1])) as following:
            async for found in following:
                assert not isinstance(found, Closed)
                numbers += [event.number for event in found]
        assert numbers == list(range(22))


async def test_a_stream_of_a_turn_that_is_gone_ends(gateway_settings_for: Make) -> None:
    async with running(gateway_settings_for(gateway_heartbeat=0.1)) as gateway:
        view = TenantView(gateway, "t")
        turn_id = await accept(view)
        turn = await view.turn(turn_id)

        async def follow() -> None:
            async with aclosing(view.follow(turn.turn_id, -1)) as following:
                async for _ in following:
                    pass

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.3)
        assert not following.done()
        client = redis.Redis.from_url(gateway.settings.redis_url)
        client.flushall()
        client.close()
        with pytest.raises(TurnNotFound):
            await asyncio.wait_for(following, 60)


async def test_requests_a_minute_are_counted_exactly(gateway_settings_for: Make) -> None:
    async with running(gateway_settings_for(gateway_requests_per_minute=50)) as gateway:
        began = time.monotonic()
        answers = await asyncio.gather(*(gateway.rate_limiter.request("t") for _ in range(80)))
        refused = [refusal for _, refusal in answers if refusal is not None]
        # The allowance grows back by one each 1.2 seconds.
        grown = math.ceil((time.monotonic() - began) / 1.2)
        assert 30 - grown <= len(refused) <= 30
        left = sorted(a.left for a, refusal in answers if a is not None and refusal is None)
        assert left[-50:] == list(range(50))
        assert all(refusal.retry_after and refusal.retry_after <= 1.2 for refusal in refused)
        allowance, refusal = await gateway.rate_limiter.request("other")
        assert refusal is None
        assert allowance is not None
        assert allowance.left == 49


async def test_turns_in_flight_are_counted_exactly(gateway_settings_for: Make) -> None:
    async with running(gateway_settings_for(gateway_turns_in_flight=5)) as gateway:
        view = TenantView(gateway, "t")

        async def one(number: int) -> str | None:
            try:
                return await accept(view, f"c{number}")
            except RateLimited:
                return None

        accepted = [turn for turn in await asyncio.gather(*map(one, range(20))) if turn]
        assert len(accepted) == 5
        await view.cancel(accepted[0])
        assert await accept(view, "later")
        with pytest.raises(RateLimited):
            await accept(view, "too many")


async def test_one_of_two_continues_and_the_other_forks(gateway_settings_for: Make) -> None:
    async with running(gateway_settings_for()) as gateway:
        view = TenantView(gateway, "t")
        turn_id = await accept(view)
        store = gateway.conversations
        answers = await asyncio.gather(
            *(
                store.continue_from("gw:t:c", turn_id, f"operation {n}", take=True)
                for n in range(10)
            )
        )
        assert sorted(answers) == [False] * 9 + [True]
        winner = answers.index(True)
        assert await store.continue_from("gw:t:c", turn_id, f"operation {winner}", take=True)


async def test_redis_out_of_reach(gateway_settings_for: Make) -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    async with running(gateway_settings_for().model_copy(update={"redis_url": url})) as gateway:
        with pytest.raises(StoreUnavailable, match="out of reach") as caught:
            await gateway.keys.find("x")
        assert "hunter2" not in str(caught.value)


async def test_readiness_tells_whether_anybody_sweeps(gateway_settings_for: Make) -> None:
    async with running(gateway_settings_for()) as gateway:
        client = redis.Redis.from_url(gateway.settings.redis_url)
        assert await _store(gateway) == ("ok", "unknown")
        store = gateway.orchestrator.store
        for swept in (False, True):
            store.elect("worker", ttl=30, swept=swept)
        assert await _store(gateway) == ("ok", "ok")
        seconds, _ = client.time()
        # One of its groups has not been swept for a minute.
        client.hset(SHARES_KEY, "swept:7", (seconds - 60) * 1000)
        store.elect("worker", ttl=30)
        assert await _store(gateway) == ("ok", "silent")
        client.close()


async def test_a_client_that_goes_ends_the_stream() -> None:
    ended: list[str] = []
    sent: list[Message] = []

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield frame({"a": 1}, event="x", number=3)
            await asyncio.sleep(60)
        finally:
            ended.append("frames")

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        while len(sent) < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    stream = EventStream(frames(), stall=60)
    await asyncio.wait_for(stream({"type": "http"}, receive, send), 30)
    assert ended == ["frames"]
    assert sent[1] == {
        "type": "http.response.body",
        "body": b'event: x\ndata: {"a":1}\nid: 3\n\n',
        "more_body": True,
    }
    assert len(sent) == 2
