"""What goes wrong while events are followed ends one stream at most, and no reader for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
import redis

from agentapi.errors import LoginRefused, StoreUnavailable
from agentapi.ids import create_turn_id
from agentapi.redis.keys import turn_keys
from agentapi.turns import Event
from orchestrator.events import follower as event_follower
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.errors import Gone
from orchestrator.gateway.native.stream import native_stream
from orchestrator.gateway.openai.streams import chat_stream, response_stream
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.turn_submission import Existing, NewMessage, accept
from orchestrator.gateway.view import TenantView
from tests import faults

Make = Callable[..., GatewaySettings]
Found = list[Event] | Closed


@pytest.fixture
async def gateway(
    gateway_settings_for: Make, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(event_follower, "_AWAY_DELAY", 0.05)
    made = Gateway(gateway_settings_for(gateway_heartbeat=0.2))
    made.follower.start()
    yield made
    await made.aclose()


def server(gateway: Gateway) -> redis.Redis:
    return redis.Redis.from_url(gateway.settings.redis_url)


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(faults.until, condition)


class Follower:
    """Somebody who follows a turn, and what came."""

    def __init__(self, gateway: Gateway, turn_id: str) -> None:
        self.numbers: list[int] = []
        self.closed: Closed | None = None
        self._gateway = gateway
        self._turn_id = turn_id
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        # So patient that only the readers bring anything.
        following = self._gateway.follower.follow(self._turn_id, -1, max_wait=1000)
        async with aclosing(following):
            async for found in following:
                if isinstance(found, Closed):
                    self.closed = found
                else:
                    self.numbers += [event.number for event in found]

    async def until(self, count: int) -> None:
        await until(lambda: len(self.numbers) >= count)

    async def ended(self) -> None:
        await asyncio.wait_for(self.task, 60)


def emit(client: redis.Redis, turn_id: str, number: int, kind: str = "delta") -> None:
    data = {"type": kind, "data": '{"text": "x"}'}
    client.xadd(turn_keys(turn_id).events, data, id=f"{number + 1}-0")  # type: ignore[arg-type]


async def both(gateway: Gateway, client: redis.Redis) -> list[Follower]:
    """Some who follow, and have got an event each."""
    turns = [create_turn_id("c", str(number)) for number in range(8)]
    followers = [Follower(gateway, turn_id) for turn_id in turns]
    await asyncio.sleep(0)
    for turn_id in turns:
        emit(client, turn_id, 0)
    for follower in followers:
        await follower.until(1)
    return followers


async def finish(client: redis.Redis, followers: list[Follower], number: int) -> None:
    for follower in followers:
        emit(client, follower._turn_id, number, "completed")
    for follower in followers:
        await follower.ended()
        assert follower.closed is None
        assert follower.numbers == list(range(number + 1))


async def test_a_key_that_is_no_stream_ends_its_own_followers(gateway: Gateway) -> None:
    with server(gateway) as client:
        followers = await both(gateway, client)
        victim = followers.pop(3)
        key = turn_keys(victim._turn_id).events
        client.delete(key)
        client.set(key, "text")
        await victim.ended()
        assert victim.closed is Closed.UNREADABLE
        await finish(client, followers, 1)
        assert gateway.follower.fresh


async def test_an_event_of_a_newer_release_hurts_nobody(gateway: Gateway) -> None:
    with server(gateway) as client:
        followers = await both(gateway, client)
        for follower in followers:
            emit(client, follower._turn_id, 1, "of a newer release")
        await finish(client, followers, 2)


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt, MemoryError])
async def test_whatever_reading_raises_it_goes_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    raised = 0

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*args: Any) -> Any:
            nonlocal raised
            # A look at what is there already, with no timeout, is not the follower's.
            waits = not args or args[1] > 0
            raised += waits
            if waits and raised <= 3:
                raise error("what nobody expected")
            return call(*args)

        return fail

    with server(gateway) as client:
        followers = await both(gateway, client)
        store = gateway.orchestrator.store
        monkeypatch.setattr(store, "events", failing(store.events))
        for follower in followers:
            emit(client, follower._turn_id, 1)
        for follower in followers:
            await follower.until(2)
        # New ones are heard of as well, whatever becomes of the wake-up.
        monkeypatch.undo()
        monkeypatch.setattr(store, "interrupt", failing(store.interrupt))
        raised = 0
        late = [Follower(gateway, create_turn_id("c", f"late {n}")) for n in range(4)]
        await until(lambda: raised > 0)
        monkeypatch.undo()
        for follower in late:
            emit(client, follower._turn_id, 0)
            emit(client, follower._turn_id, 1)
        await finish(client, [*followers, *late], 2)
    status = {found.name: found for found in gateway.supervisor.status()}
    assert sum(found.failures for found in status.values()) >= 3
    assert error.__name__ in {found.last_error for found in status.values()}


@pytest.mark.parametrize("error", [LoginRefused, StoreUnavailable])
async def test_a_redis_that_refuses_is_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, error: type[StoreUnavailable]
) -> None:
    with server(gateway) as client:
        followers = await both(gateway, client)
        refused = threading.Event()

        def refuse(*_: Any, **__: Any) -> Any:
            refused.set()
            raise error("not now")

        monkeypatch.setattr(gateway.orchestrator.store, "events", refuse)
        for follower in followers:
            emit(client, follower._turn_id, 1)
        assert await asyncio.to_thread(refused.wait, 30)
        monkeypatch.undo()
        await finish(client, followers, 2)
        assert sum(found.failures for found in gateway.supervisor.status()) == 0


async def test_events_that_no_reader_brings_are_looked_for(gateway: Gateway) -> None:
    view = TenantView(gateway, "t")
    turn_id = await accept(
        view,
        NewMessage(agent="a", text="hi", idempotency_key="k", stream=True),
        Existing(conversation_id="c"),
    )
    turn = await view.turn(turn_id)
    await asyncio.to_thread(gateway.orchestrator.follower.close)
    assert not gateway.follower.fresh
    frames: list[bytes] = []

    async def collect() -> None:
        async for found in native_stream(view, turn, -1):
            frames.append(found)

    collecting = asyncio.create_task(collect())
    await asyncio.sleep(0)
    await asyncio.to_thread(gateway.orchestrator.cancel, turn_id)
    await asyncio.wait_for(collecting, 60)
    assert b"event: cancelled" in frames[-1]
    assert (await asyncio.wait_for(view.wait(turn_id, 60), 60)).status.ended


async def test_a_stream_whose_events_are_gone_says_so(gateway: Gateway) -> None:
    view = TenantView(gateway, "t")
    message = NewMessage(agent="a", text="hi", idempotency_key="k")
    turn = await view.turn(await accept(view, message, Existing(conversation_id="c")))
    await asyncio.to_thread(gateway.orchestrator.cancel, turn.turn_id)
    with server(gateway) as client:
        client.delete(turn_keys(turn.turn_id).events)

    async def follow() -> None:
        async for _ in view.follow(turn.turn_id, -1):
            pass

    with pytest.raises(Gone):
        await asyncio.wait_for(follow(), 60)


async def test_a_stream_that_crashes_ends_with_an_error(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = TenantView(gateway, "t")
    message = NewMessage(agent="a", text="hi", idempotency_key="k")
    turn = await view.turn(await accept(view, message, Existing(conversation_id="c")))

    async def crash(*_: Any, **__: Any) -> AsyncIterator[Found]:
        yield []
        raise RuntimeError("what a user said")

    monkeypatch.setattr(gateway.follower, "follow", crash)
    for stream in (
        native_stream(view, turn, -1),
        response_stream(view, turn, -1),
        chat_stream(view, turn, include_usage=False),
    ):
        frames = [found async for found in stream]
        assert b'"internal"' in frames[-1]
        assert b"what a user said" not in b"".join(frames)
