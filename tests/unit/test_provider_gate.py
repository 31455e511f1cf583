"""What a process asks the fleet about its providers, and when it need not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentapi import Agent, load_settings
from agentapi.admission import (
    Ask,
    InMemoryTraffic,
    Permit,
    ProviderGate,
    Standing,
    Used,
    Wait,
    local_gate,
)
from agentapi.admission.gate import EXPECTED_REPLY, ROUSES
from agentapi.conversation.messages import Usage, UserMessage
from agentapi.engine.model_chain import chain_of
from agentapi.engine.patience import FIRST_PARK, RetryPolicy
from agentapi.errors import (
    ConfigurationError,
    ContextTooLong,
    ProviderAway,
    ProviderHeld,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderUnavailable,
    TurnParked,
)
from agentapi.providers import ModelRequest, ToolSpec
from agentapi.settings import ProviderLimits
from agentapi.testing import ScriptedProvider, says
from tests.unit.test_loop import run
from workers.app import create_app

Play = Callable[..., ScriptedProvider]


def request(text: str = "hi", **more: Any) -> ModelRequest:
    more = {"system_prompt": "", **more}
    return ModelRequest(model="m", messages=[UserMessage(content=text)], **more)


@dataclass
class Clock:
    """Seconds for the gate, milliseconds for the traffic."""

    now: float = 1000.0

    def seconds(self) -> float:
        return self.now

    def ms(self) -> int:
        return round(self.now * 1000)


@dataclass
class Counted:
    """Notes each round trip."""

    inner: InMemoryTraffic
    trips: list[str] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)

    def admit(self, ask: Ask) -> Wait | None:
        self.trips.append("admit")
        self.asks.append(ask)
        return self.inner.admit(ask)

    def settle(self, ask: Ask, used: int) -> None:
        self.trips.append("settle")
        self.settled.append(used)
        self.inner.settle(ask, used)

    def failed(self, provider: str, call_id: str, *, hold: float | None, counts: bool) -> Standing:
        self.trips.append("failed")
        return self.inner.failed(provider, call_id, hold=hold, counts=counts)

    def answered(self, provider: str) -> Standing:
        self.trips.append("answered")
        return self.inner.answered(provider)

    def standings(self, names: Sequence[str]) -> Mapping[str, Standing]:
        self.trips.append("standings")
        return self.inner.standings(names)

    def used(self, names: Sequence[str]) -> Mapping[str, Used]:
        self.trips.append("used")
        return self.inner.used(names)

    def close(self) -> None:
        self.inner.close()


@dataclass
class Fleet:
    """Two processes with one traffic."""

    limits: dict[str, ProviderLimits] = field(default_factory=dict)
    parks: bool = False

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.traffic = Counted(InMemoryTraffic(clock=self.clock.ms))
        self.one, self.two = (self.process() for _ in range(2))

    def process(self) -> ProviderGate:
        return ProviderGate(self.traffic, self.limits, parks=self.parks, clock=self.clock.seconds)

    async def fail(self, gate: ProviderGate, times: int = 1, **more: Any) -> None:
        more = {"status": 503, **more}
        for _ in range(times):
            permit = await gate.enter("p", request(), alone=True)
            await gate.failed(permit, ProviderUnavailable("x", provider="p", **more))


async def pass_through(gate: ProviderGate, *, alone: bool = False) -> Permit:
    permit = await gate.enter("p", request(), alone=alone)
    await gate.answered(permit, Usage(input_tokens=1))
    return permit


@pytest.mark.parametrize("alone", [True, False])
async def test_a_healthy_fleet_without_limits_pays_nothing(alone: bool) -> None:
    fleet = Fleet()
    for _ in range(3):
        await pass_through(fleet.one, alone=alone)
    assert fleet.traffic.trips == []
    fleet.two.look()
    assert fleet.traffic.trips == []


async def test_after_a_failure_one_answer_is_reported() -> None:
    fleet = Fleet()
    await fleet.fail(fleet.one)
    for _ in range(3):
        await pass_through(fleet.one)
    assert fleet.traffic.trips == ["failed", "answered"]


async def test_an_open_breaker_is_passed_by_until_a_probe_is_answered() -> None:
    fleet = Fleet()
    await pass_through(fleet.two)
    await fleet.fail(fleet.one, times=5)
    # The other process hears of it with its heartbeat.
    await pass_through(fleet.two)
    fleet.two.look()
    for gate in (fleet.one, fleet.two):
        with pytest.raises(ProviderUnavailable, match="failed several times") as caught:
            await gate.enter("p", request(), alone=False)
        assert caught.value.retry_after == pytest.approx(1)
        assert not isinstance(caught.value, ProviderHeld)
        await gate.enter("p", request(), alone=True)
    assert "admit" not in fleet.traffic.trips

    fleet.clock.now += 30
    probe = await fleet.one.enter("p", request(), alone=False)
    with pytest.raises(ProviderUnavailable):
        await fleet.two.enter("p", request(), alone=False)
    await fleet.one.answered(probe, Usage())
    fleet.two.look()
    trips = len(fleet.traffic.trips)
    for gate in (fleet.one, fleet.two):
        await pass_through(gate)
    assert fleet.traffic.trips[trips:] == []


async def failure(gate: ProviderGate, permit: Permit) -> ProviderUnavailable:
    error = ProviderUnavailable("x", provider="p", status=503)
    await gate.failed(permit, error)
    return error


async def test_where_turns_can_wait_nobody_asks_a_provider_that_is_away() -> None:
    fleet = Fleet(parks=True)
    await pass_through(fleet.one, alone=True)
    permits = [await fleet.one.enter("p", request(), alone=True) for _ in range(6)]
    errors = [await failure(fleet.one, permit) for permit in permits]
    # The one whose failure has opened the breaker finds out for all of them.
    assert [error.probe_after for error in errors] == [None] * 4 + [1.0, None]
    for gate in (fleet.one, fleet.two):
        with pytest.raises(ProviderAway):
            await gate.enter("p", request(), alone=True)
    fleet.clock.now += 1
    probe = await fleet.one.enter("p", request(), alone=True)
    with pytest.raises(ProviderAway):
        await fleet.two.enter("p", request(), alone=True)
    assert (await failure(fleet.one, probe)).probe_after == 2.0


async def test_what_a_process_knows_of_an_open_breaker_is_soon_asked_again() -> None:
    fleet = Fleet(parks=True)
    await fleet.fail(fleet.one, times=5)
    with pytest.raises(ProviderAway):
        await fleet.two.enter("p", request(), alone=True)
    fleet.clock.now += 1
    await pass_through(fleet.one, alone=True)
    # It has not looked since, and must not refuse by what it knew then.
    await pass_through(fleet.two, alone=True)


async def test_each_process_that_knew_of_the_outage_wakes_those_who_wait() -> None:
    fleet = Fleet(parks=True)
    await pass_through(fleet.two, alone=True)
    await fleet.fail(fleet.one, times=5)
    fleet.two.look()
    assert (fleet.one.back(), fleet.two.back()) == ([], [])
    fleet.clock.now += 1
    await pass_through(fleet.one, alone=True)
    fleet.two.look()
    for gate in (fleet.one, fleet.two):
        for _ in range(ROUSES):
            assert gate.back() == ["p"]
            gate.roused("p")
        assert gate.back() == []
    # It is away again: who waits now is not woken.
    await pass_through(fleet.one, alone=True)
    assert fleet.one.back() == []


async def test_a_process_that_starts_during_an_outage_closes_the_breaker() -> None:
    fleet = Fleet(parks=True)
    await fleet.fail(fleet.one, times=5)
    fleet.clock.now += 1
    new = fleet.process()
    await pass_through(new, alone=True)
    assert fleet.traffic.standings(["p"]) == {"p": Standing()}
    assert new.back() == ["p"]
    trips = len(fleet.traffic.trips)
    await pass_through(new, alone=True)
    assert len(fleet.traffic.trips) == trips


async def test_a_refusal_too_shows_that_the_provider_is_there() -> None:
    fleet = Fleet()
    await fleet.fail(fleet.one, times=5)
    fleet.clock.now += 30
    probe = await fleet.one.enter("p", request(), alone=False)
    await fleet.one.failed(probe, ProviderRejected("no", provider="p", status=400))
    assert fleet.traffic.standings(["p"]) == {"p": Standing()}


async def test_a_key_that_is_missing_says_nothing_about_the_provider() -> None:
    fleet = Fleet()
    permit = await fleet.one.enter("p", request(), alone=True)
    await fleet.one.failed(permit, ProviderMisconfigured("no key", provider="p"))
    assert fleet.traffic.trips == []


async def test_what_the_provider_asked_of_one_holds_all() -> None:
    fleet = Fleet(limits={"p": ProviderLimits(requests=100)})
    await fleet.fail(fleet.one, status=429, retry_after=20)
    for gate in (fleet.one, fleet.two):
        with pytest.raises(ProviderHeld, match="asked clients to wait") as caught:
            await gate.enter("p", request(), alone=True)
        assert caught.value.retry_after == pytest.approx(20)
    trips = len(fleet.traffic.trips)
    with pytest.raises(ProviderHeld):
        await fleet.two.enter("p", request(), alone=True)
    assert len(fleet.traffic.trips) == trips
    fleet.clock.now += 20
    await pass_through(fleet.two)


async def test_without_limits_the_hold_comes_with_the_heartbeat() -> None:
    fleet = Fleet()
    await pass_through(fleet.two)
    await fleet.fail(fleet.one, status=429, retry_after=20)
    fleet.two.look()
    with pytest.raises(ProviderHeld):
        await fleet.two.enter("p", request(), alone=True)


@pytest.mark.parametrize(
    ("failure", "opens"),
    [
        ({"status": 429, "retry_after": 0.01}, False),
        ({"status": 429}, True),
        ({"status": 503, "retry_after": 0.01}, True),
        ({"status": None}, True),
    ],
)
async def test_which_failures_open_the_breaker(failure: dict[str, Any], opens: bool) -> None:
    fleet = Fleet()
    for _ in range(5):
        await fleet.fail(fleet.one, **failure)
        fleet.clock.now += 0.1
    assert (fleet.traffic.standings(["p"])["p"].open is not None) == opens


async def test_tokens_are_reserved_by_estimate_and_settled_by_the_providers_count() -> None:
    fleet = Fleet(limits={"p": ProviderLimits(tokens=10_000)})
    spec = ToolSpec(name="look", description="d" * 40, parameters={})
    sent = request("x" * 4000, system_prompt="y" * 400, tools=[spec])
    permit = await fleet.one.enter("p", sent, alone=True)
    # 4 bytes a token, 2 a message, and a reply of unknown length.
    assert permit.ask.tokens == 1002 + (400 + 40 + 2) // 4 + EXPECTED_REPLY
    await fleet.one.answered(permit, Usage(input_tokens=900, output_tokens=50))
    assert fleet.traffic.settled == [950]
    bounded = request("x" * 40, options={"max_tokens": 7})
    assert (await fleet.one.enter("p", bounded, alone=True)).ask.tokens == 12 + 7


async def test_a_cost_that_the_provider_does_not_tell_stays_as_reserved() -> None:
    fleet = Fleet(limits={"p": ProviderLimits(tokens=10_000)})
    permit = await fleet.one.enter("p", request(), alone=True)
    await fleet.one.answered(permit, Usage())
    assert fleet.traffic.trips == ["admit"]


async def test_requests_alone_are_not_settled() -> None:
    fleet = Fleet(limits={"p": ProviderLimits(requests=5)})
    await pass_through(fleet.one)
    assert fleet.traffic.trips == ["admit"]
    assert fleet.traffic.asks[0].tokens == 0


async def test_a_call_larger_than_the_limit_of_a_minute() -> None:
    fleet = Fleet(limits={"p": ProviderLimits(tokens=600)})
    fits = await fleet.one.enter("p", request("x" * 2000), alone=True)
    assert fits.ask.tokens == 600
    with pytest.raises(
        ContextTooLong, match=r"about 1002 tokens .*, 600 tokens per minute .*: raise the limit"
    ):
        await fleet.one.enter("p", request("x" * 4000), alone=True)


async def test_a_chain_does_not_wait_for_a_budget_while_another_answers(script: Play) -> None:
    first = script(says("one"))
    second = script(says("two"), says("three"), provider="gemini")
    gate = ProviderGate(InMemoryTraffic(), {"openai": ProviderLimits(requests=1)})
    agent = Agent(name="a", provider=["openai", "gemini"])
    replies = [
        (await run(chain_of(agent.definition, gate=gate), agent=agent)).text for _ in range(3)
    ]
    assert replies == ["one", "two", "three"]
    assert (len(first.requests), len(second.requests)) == (1, 2)


async def test_when_all_breakers_are_open_it_waits_for_the_first(script: Play) -> None:
    first, second = script(), script(provider="gemini")
    traffic = InMemoryTraffic()
    for provider in ("openai", "gemini"):
        for n in range(5):
            traffic.failed(provider, str(n), hold=None, counts=True)
    gate = ProviderGate(traffic, {})
    agent = Agent(name="a", provider=["openai", "gemini"])
    for choice in agent.definition.choices:
        await gate.enter(choice.provider, request(), alone=True)
    gate.look()
    with pytest.raises(TurnParked) as caught:
        await run(
            chain_of(agent.definition, gate=gate),
            agent=agent,
            retry=RetryPolicy(failures=1, park_after=5),
        )
    assert caught.value.failures == 2
    assert caught.value.names == ("openai", "gemini")
    assert 0.75 * FIRST_PARK <= caught.value.delay <= 1.25 * FIRST_PARK
    assert (first.requests, second.requests) == ([], [])


async def test_it_parks_for_the_budget_without_a_failure(script: Play) -> None:
    script(says("one"))
    gate = ProviderGate(InMemoryTraffic(), {"openai": ProviderLimits(requests=1)})
    agent = Agent(name="a", provider="openai")
    await run(chain_of(agent.definition, gate=gate), agent=agent)
    with pytest.raises(TurnParked) as caught:
        await run(
            chain_of(agent.definition, gate=gate),
            agent=agent,
            retry=RetryPolicy(max_retries=0, failures=0, park_after=5),
        )
    assert caught.value.failures == 0
    assert 59 < caught.value.delay <= 75


async def test_a_short_wait_for_the_budget_is_slept_through(script: Play) -> None:
    script(says("one"), says("two"))
    traffic = InMemoryTraffic(window=0.2)
    gate = ProviderGate(traffic, {"openai": ProviderLimits(requests=1)})
    agent = Agent(name="a", provider="openai")
    for expected in ("one", "two"):
        result = await run(
            chain_of(agent.definition, gate=gate),
            agent=agent,
            retry=RetryPolicy(max_retries=0, park_after=5),
        )
        assert result.text == expected


async def test_an_agent_by_itself_keeps_to_the_limits(
    script: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTAPI_PROVIDER_LIMITS", '{"openai": {"tokens": 20}}')
    script()
    agent = Agent(name="a", provider="openai")
    with pytest.raises(ContextTooLong):
        await agent.run("x" * 400)
    assert local_gate({}) is local_gate({})


def test_limits_are_json() -> None:
    read = load_settings(provider_limits='{"openai": {"requests": 5}, "gemini": {"tokens": 7}}')
    assert read.provider_limits == {
        "openai": ProviderLimits(requests=5),
        "gemini": ProviderLimits(tokens=7),
    }
    assert load_settings().provider_limits == {}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{openai", r"expected JSON such as \{\"openai\""),
        ("[1]", "expected a JSON object such as"),
        ('{"openai": 5}', "AGENTAPI_PROVIDER_LIMITS"),
        ('{"openai": {"requests": 0}}', "expected 1 or more"),
        ('{"openai": {"request": 5}}', "Extra inputs are not permitted"),
    ],
)
def test_limits_that_are_none(value: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match="AGENTAPI_PROVIDER_LIMITS") as caught:
        load_settings(provider_limits=value)
    caught.match(told)


def test_limits_of_no_provider() -> None:
    limited = load_settings(eager=True, provider_limits='{"opnai": {"requests": 5}}')
    with pytest.raises(ConfigurationError, match="PROVIDER_LIMITS: unknown provider 'opnai'"):
        create_app(limited, [])
