"""Workers of one fleet and the real openai SDK: a budget, a hold and a breaker that all share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from agentapi import Agent, Turn, TurnStatus, Window
from agentapi.admission import BreakerRule
from agentapi.providers import ProviderFactory, providers
from agentapi.providers.gemini.client import GeminiProvider
from agentapi.providers.openai.client import OpenAIProvider
from agentapi.stores import Claim
from orchestrator import Orchestrator
from tests.fakes import chat, gemini
from tests.fakes.server import WireServer, serving
from tests.faults import a_minute_passes, until
from tests.integration.fleet import Fleet

AGENTS = [
    Agent(name="one", provider="openai"),
    Agent(name="both", provider=["openai", "gemini"]),
]


PATIENT = BreakerRule(open_for=30, longest=50)
"""A busy machine takes longer than the usual second for what is done while a breaker is open."""


@dataclass
class Fleets:
    """Two workers on one Redis, and the servers that they ask."""

    openai: WireServer
    gemini: WireServer
    make: Callable[..., Fleet]
    url: str

    def worker(self, *, rule: BreakerRule = PATIENT, **settings: Any) -> Fleet:
        made = self.make(agents=AGENTS, heartbeat=60, **{"park_after": 0, **settings})
        made.app.runtime._gate._traffic._rule = rule  # type: ignore[attr-defined]
        return made

    def a_minute_passes(self, *workers: Fleet) -> None:
        a_minute_passes(self.url)
        for worker in workers:
            worker.app.runtime._gate.look()

    def known(self) -> dict[str, Any]:
        """What Redis has of openai."""
        client = redis.Redis.from_url(self.url, decode_responses=True)
        charges = client.hgetall("agentapi:provider:{openai}:charges")
        keys = sorted(client.scan_iter("agentapi:provider:*"))
        client.close()
        return {"charges": charges, "keys": keys}


@pytest.fixture
async def fleets(make_fleet: Callable[..., Fleet], redis_url: str) -> AsyncIterator[Fleets]:
    async with serving() as one, serving() as two:
        with ExitStack() as replaced:
            factories: dict[str, ProviderFactory] = {
                "openai": lambda: OpenAIProvider(api_key="k", base_url=f"{one.url}/v1"),
                "gemini": lambda: GeminiProvider(api_key="k", base_url=two.url),
            }
            for name, factory in factories.items():
                replaced.enter_context(providers.replaced(name, factory))
            made: list[Fleet] = []

            def make_one(**more: Any) -> Fleet:
                made.append(make_fleet(**more))
                return made[-1]

            yield Fleets(one, two, make_one, redis_url)
            for fleet in made:
                await asyncio.to_thread(fleet.app.runtime.stop)


async def say(worker: Fleet, agent: str = "one", turn: Turn | None = None) -> Turn:
    """A turn, or a further try of one, carried out by a worker."""
    turn = turn or worker.enqueue(agent, "hi")
    await asyncio.to_thread(worker.execute, turn)
    return worker.turn(turn)


async def test_a_budget_is_shared_and_who_waits_parks(fleets: Fleets) -> None:
    limits = '{"openai": {"requests": 2, "tokens": 1200}}'
    one, two = fleets.worker(provider_limits=limits), fleets.worker(provider_limits=limits)
    fleets.openai.will(*[chat.reply("Hello")] * 3)
    assert (await say(one)).text == "Hello"
    assert (await say(two)).text == "Hello"
    # 17 tokens each, as the server counts them; what was reserved beyond is free again.
    charges = fleets.known()["charges"]
    assert (charges["requests"], charges["tokens"]) == ("2", "34")

    turn = await say(one)
    assert (turn.status, turn.failures) == (TurnStatus.PARKED, 0)
    parked = one.app.store.events({turn.turn_id: -1}, timeout=0)[turn.turn_id][-1]
    assert parked.data["reason"] == "provider"
    assert 50 < parked.data["seconds"] <= 75
    assert len(fleets.openai.requests) == 2

    fleets.a_minute_passes(one, two)
    assert (await say(two, turn=turn)).text == "Hello"


async def test_waiting_for_the_budget_is_never_a_failure(fleets: Fleets) -> None:
    worker = fleets.worker(
        provider_limits='{"openai": {"requests": 1}}', provider_max_retries=0, max_attempts=1
    )
    fleets.openai.will(*[chat.reply("Hello")] * 5)
    turn: Turn | None = None
    for _ in range(4):
        await say(worker)
        turn = await say(worker, turn=turn)
        assert (turn.status, turn.failures) == (TurnStatus.PARKED, 0)
        fleets.a_minute_passes(worker)
    assert (await say(worker, turn=turn)).text == "Hello"


async def test_a_call_that_no_minute_has_room_for(fleets: Fleets) -> None:
    worker = fleets.worker(provider_limits='{"openai": {"tokens": 20}}')
    turn = worker.enqueue("one", "x" * 400)
    await asyncio.to_thread(worker.execute, turn)
    error = worker.turn(turn).error
    assert error is not None
    assert error.code == "context_too_long"
    assert "AGENTAPI_PROVIDER_LIMITS" in error.message


@pytest.mark.parametrize("limits", ["{}", '{"openai": {"requests": 100}}'])
async def test_what_the_provider_asked_of_one_worker_holds_the_other(
    fleets: Fleets, limits: str
) -> None:
    one, two = fleets.worker(provider_limits=limits), fleets.worker(provider_limits=limits)
    fleets.openai.will(chat.reply("Hello"), chat.error(429, "slow down", retry_after="60"))
    assert (await say(two)).text == "Hello"
    slowed = await say(one)
    assert (slowed.status, slowed.failures) == (TurnStatus.PARKED, 1)
    two.app.runtime._gate.look()
    held = await say(two)
    assert (held.status, held.failures) == (TurnStatus.PARKED, 0)
    assert len(fleets.openai.requests) == 2

    # Who has another provider does not wait.
    fleets.gemini.will(gemini.reply({"text": "Hello from Gemini"}))
    assert (await say(two, "both")).text == "Hello from Gemini"
    assert len(fleets.openai.requests) == 2

    fleets.a_minute_passes(one, two)
    fleets.openai.will(chat.reply("again"), chat.reply("again"))
    assert (await say(one, turn=slowed)).text == "again"
    assert (await say(two, turn=held)).text == "again"


@pytest.mark.parametrize("nonsense", ["inf", "nan"])
async def test_a_wait_that_is_no_time_is_no_wait(fleets: Fleets, nonsense: str) -> None:
    fleets.openai.will(chat.error(429, "slow down", retry_after=nonsense), chat.reply("Hello"))
    assert (await say(fleets.worker(park_after=60))).text == "Hello"


async def test_a_provider_that_fails_is_passed_by_until_it_answers(fleets: Fleets) -> None:
    one, two = fleets.worker(), fleets.worker()
    fleets.gemini.will(*[gemini.reply({"text": "Gemini"})] * 9)
    fleets.openai.will(chat.reply("before"), *[chat.error(500, "boom")] * 5)
    assert (await say(two, "both")).text == "before"
    for _ in range(5):
        assert (await say(one, "both")).text == "Gemini"
    asked = len(fleets.openai.requests)
    two.app.runtime._gate.look()
    for worker in (one, two):
        assert (await say(worker, "both")).text == "Gemini"
    assert len(fleets.openai.requests) == asked

    # After a while one call looks whether it is back. It is not; the next time it is.
    fleets.a_minute_passes(one, two)
    fleets.openai.will(chat.error(500, "boom"))
    assert [(await say(worker, "both")).text for worker in (one, two)] == ["Gemini"] * 2
    assert len(fleets.openai.requests) == asked + 1
    fleets.a_minute_passes(one, two)
    fleets.openai.will(*[chat.reply("back")] * 3)
    for worker in (two, two, one):
        assert (await say(worker, "both")).text == "back"


async def test_an_agent_with_one_provider_goes_on_asking_it(fleets: Fleets) -> None:
    """It finds out whether the provider is back, for all others too."""
    worker = fleets.worker(rule=BreakerRule(), provider_max_retries=9, park_after=5)
    fleets.openai.will(*[chat.error(500, "boom", retry_after="0")] * 5, chat.reply("back"))
    assert (await say(worker)).text == "back"


async def test_one_outage_costs_the_fleet_one_probe_and_its_end_wakes_all(fleets: Fleets) -> None:
    one, two = fleets.worker(provider_max_retries=0), fleets.worker(provider_max_retries=0)
    fleets.openai.will(chat.reply("before"), chat.reply("before"))
    for worker in (one, two):
        assert (await say(worker)).text == "before"
    fleets.openai.will(*[chat.error(503, "down")] * 5)
    turns = [await say(one) for _ in range(8)]
    two.app.runtime._gate.look()
    turns += [await say(two) for _ in range(8)]
    assert {turn.status for turn in turns} == {TurnStatus.PARKED}
    assert [turn.failures for turn in turns] == [1] * 16
    asked = len(fleets.openai.requests)
    assert asked == 2 + 5

    # One of them asks for all; the turns that come meanwhile do not.
    fleets.a_minute_passes(one, two)
    fleets.openai.will(chat.error(503, "down"))
    for turn in turns:
        assert (await say(two, turn=turn)).status is TurnStatus.PARKED
    assert len(fleets.openai.requests) == asked + 1
    waits = [one.turn(turn).waiting_for for turn in turns]
    assert all(wait is not None and wait.names == ("openai",) for wait in waits)

    fleets.a_minute_passes(one, two)
    fleets.openai.will(*[chat.reply("back")] * 16)
    first, *others = turns
    # These have just found the provider away, and wait for long.
    await asyncio.gather(*(asyncio.to_thread(park_for_long, one, turn) for turn in others))
    assert (await say(two, turn=first)).text == "back"
    now = one.turn(first).ended_at or 0
    two.app.runtime._heartbeat._rouse()
    wakes = [one.turn(turn).wakes_at or 0 for turn in others]
    # Soon, but not all at once.
    assert all(wake - now < 10 for wake in wakes)
    assert len(set(wakes)) > 10
    for turn in others:
        await asyncio.to_thread(until_due, one, turn)
        assert (await say(one, turn=turn)).text == "back"
    assert len(fleets.openai.requests) == asked + 1 + 16


def park_for_long(worker: Fleet, turn: Turn) -> None:
    store = worker.app.store
    claim = store.claim(
        turn.conversation_id, turn.turn_id, owner="w", token=uuid.uuid4().hex, window=Window()
    )
    assert isinstance(claim, Claim)
    assert store.park(
        claim.lease, 100, failures=9, steps=0, reason="provider", names=["openai"], lasted=60
    )


def until_due(worker: Fleet, turn: Turn) -> None:
    until(lambda: turn.conversation_id in worker.app.store.overdue())


async def test_a_healthy_turn_without_limits_leaves_nothing_in_redis(fleets: Fleets) -> None:
    worker = fleets.worker()
    fleets.openai.will(chat.reply("Hello"), chat.reply("Hello"))
    for agent in ("one", "both"):
        assert (await say(worker, agent)).text == "Hello"
    assert fleets.known()["keys"] == []


def test_eager_mode_keeps_to_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, as everything there: no server is asked."""
    agent = Agent(name="eager", provider="offline")
    limits = '{"offline": {"requests": 1}}'
    with Orchestrator.eager([agent], provider_limits=limits) as orchestrator:
        assert orchestrator.enqueue("eager", "hi").result().text == "You said: hi"
        late = orchestrator.enqueue("eager", "hi", deadline=0.3).info()
    assert late.error is not None
    assert late.error.code == "deadline"
