"""How long a call waits for a provider that is away, and where."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentapi import Agent, Event, EventType, WaitingFor, WaitKind
from agentapi.engine.patience import (
    FIRST_PARK,
    LONGEST_PARK,
    RetryPolicy,
    park_delay,
    retry_delay,
    ride_out,
)
from agentapi.errors import (
    InvalidAgent,
    NoProviderAvailable,
    ProviderAway,
    ProviderHeld,
    ProviderRejected,
    ProviderUnavailable,
    ToolServerUnavailable,
)
from agentapi.signals import TurnParked
from orchestrator.wording import wait_of


def away(seconds: float = 1.0, provider: str = "openai") -> ProviderAway:
    return ProviderAway("away", provider=provider, retry_after=seconds)


def down(provider: str = "openai", **more: Any) -> ProviderUnavailable:
    return ProviderUnavailable("down", provider=provider, status=503, **more)


def probing(seconds: float) -> ProviderUnavailable:
    error = down()
    error.probe_after = seconds
    return error


async def tried(*errors: ProviderUnavailable, **policy: Any) -> tuple[str, list[float]]:
    """Ride these failures out; returns the answer, and the seconds that were slept here."""
    slept: list[float] = []
    left = list(errors)

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    async def again() -> None:
        pass

    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentapi.engine.patience.asyncio.sleep", sleep)
        return await ride_out(attempt, RetryPolicy(**policy), again=again), slept


async def parked(*errors: ProviderUnavailable, **policy: Any) -> TurnParked:
    with pytest.raises(TurnParked) as caught:
        await tried(*errors, **{"park_after": 5.0, **policy})
    return caught.value


async def over(*errors: ProviderUnavailable, **policy: Any) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as caught:
        await tried(*errors, **{"park_after": 5.0, **policy})
    return caught.value


async def test_quick_repeats_come_first_and_are_made_here() -> None:
    answer, slept = await tried(down(), down(), down(), park_after=5.0)
    assert answer == "answer"
    assert len(slept) == 3
    assert all(a < b for a, b in zip(slept, (0.7, 1.3, 2.6), strict=True))


async def test_then_the_turn_parks_for_growing_times() -> None:
    waits = []
    for failures in range(3, 12):
        signal = await parked(down(), failures=failures, failing_for=10.0)
        assert (signal.failures, signal.names) == (failures + 1, ("openai",))
        assert signal.lasted is not None
        assert 10 <= signal.lasted < 40
        waits.append(signal.delay)
    assert 0.75 * FIRST_PARK <= waits[0] <= 1.25 * FIRST_PARK
    assert all(LONGEST_PARK * 0.75 <= wait <= LONGEST_PARK * 1.25 for wait in waits[-3:])
    assert len({park_delay(9) for _ in range(9)}) == 9


async def test_a_provider_that_is_known_to_be_away_parks_at_once() -> None:
    signal = await parked(away())
    assert (signal.failures, signal.kind) == (1, WaitKind.PROVIDER)
    assert 0.75 * FIRST_PARK <= signal.delay <= 1.25 * FIRST_PARK
    # It is not worth to come back before anybody may ask.
    assert (await parked(away(30.0))).delay >= 30


async def test_who_probes_comes_back_for_it() -> None:
    answer, slept = await tried(probing(1.0), probing(4.0), park_after=5.0, failures=20)
    assert (answer, slept) == ("answer", [1.0, 4.0])
    assert (await parked(probing(8.0))).delay == 8.0


async def test_the_patience_ends_with_a_last_try() -> None:
    last = await parked(down(), failures=5, failing_for=1799.0, patience=1800.0)
    assert last.delay <= 1.0
    for error in (down(), away(), probing(1.0)):
        end = await over(error, failures=9, failing_for=1800.0, patience=1800.0)
        assert end.code == "provider_unavailable"
        assert "was unavailable for 1800 s and was tried 10 times" in str(end)
        assert str(error) in str(end)
        assert "retry()" in str(end)


async def test_what_comes_back_too_late_fails_at_once() -> None:
    end = await over(down(retry_after=7200.0), patience=1800.0)
    assert "asked to wait 7200 s, longer than the 1800 s that were left" in str(end)
    held = ProviderHeld("held", provider="openai", retry_after=7200.0)
    assert "7200 s" in str(await over(held, patience=1800.0))
    assert (await parked(down(retry_after=600.0), patience=1800.0)).delay >= 600


async def test_room_in_the_budget_is_waited_for_without_a_limit() -> None:
    held = ProviderHeld("full", provider="openai", retry_after=60.0, budget=True)
    signal = await parked(held, patience=0.0)
    assert (signal.failures, signal.lasted) == (0, None)
    assert 60 <= signal.delay <= 75
    both = NoProviderAvailable("both", causes=[held, down("gemini")])
    signal = await parked(both, failures=9, failing_for=9000.0, patience=1800.0)
    assert signal.names == ("openai", "gemini")


async def test_without_patience_only_the_quick_repeats_are_made() -> None:
    error = down()
    assert await over(down(), down(), error, patience=0.0, max_retries=2) is error
    assert (await over(away(), patience=0.0)).code == "provider_unavailable"


async def test_who_cannot_park_fails_after_the_quick_repeats() -> None:
    with pytest.raises(ProviderUnavailable):
        await tried(*[down(retry_after=0.0)] * 4)


async def test_a_refusal_is_not_waited_for() -> None:
    async def refused() -> None:
        raise ProviderRejected("no", provider="openai", status=400)

    with pytest.raises(ProviderRejected):
        await ride_out(refused, RetryPolicy(park_after=5.0))


async def test_a_server_of_tools_is_waited_for_too() -> None:
    gone = ToolServerUnavailable("gone", server="crm")
    signal = await parked(gone, failures=3)
    assert (signal.kind, signal.names) == (WaitKind.TOOL_SERVER, ("crm",))


def test_waits_do_not_overflow() -> None:
    assert retry_delay(down(), 5_000) <= 30
    assert park_delay(5_000) <= 1.25 * LONGEST_PARK


@pytest.mark.parametrize("patience", [-1, float("inf"), float("nan"), "long", True])
def test_a_patience_that_is_none(patience: Any) -> None:
    with pytest.raises(InvalidAgent, match=r"patience is .* expected seconds, 0 or more"):
        Agent(name="a", patience=patience)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (0, "waiting for openai, next try in 12 s"),
        (3, "waiting for openai, next try in 12 s, third failure"),
        (11, "waiting for openai, next try in 12 s, 11th failure"),
        (22, "waiting for openai, next try in 12 s, 22nd failure"),
        (113, "waiting for openai, next try in 12 s, 113th failure"),
    ],
)
def test_a_wait_in_words(failures: int, told: str) -> None:
    waits = WaitingFor(
        kind=WaitKind.PROVIDER, names=("openai",), failures=failures, next_try_at=111.2
    )
    assert waits.describe(100.0) == told


def test_a_try_in_words() -> None:
    waits = WaitingFor(kind=WaitKind.PROVIDER, names=("openai", "gemini"), failures=2)
    assert waits.describe(1.0) == "trying openai or gemini again, second failure"


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (
            EventType.PARKED,
            {"seconds": 11.2, "reason": "provider", "waits_for": "openai", "failures": 3},
            "waiting for openai, next try in 12 s, third failure",
        ),
        (
            EventType.PARKED,
            {"seconds": 60, "reason": "provider", "waits_for": "openai"},
            "waiting for openai, next try in 60 s",
        ),
        (EventType.PARKED, {"seconds": 60, "reason": "provider"}, None),
        (EventType.PARKED, {"reason": "approval", "calls": ["c"]}, None),
        (EventType.PARKED, {"waits_for": "openai", "seconds": "soon"}, None),
        (EventType.STARTED, {"waits_for": "openai", "seconds": 1}, None),
    ],
)
def test_an_event_in_words(kind: EventType, data: dict[str, Any], told: str | None) -> None:
    assert wait_of(Event(number=0, type=kind, data=data)) == told
