"""Every call about providers, made again as when its answer was lost: same state, same answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import redis
from hypothesis.stateful import run_state_machine_as_test

from agentapi import load_settings
from agentapi.admission import BreakerRule, Reason, RedisTraffic, Traffic, Wait
from agentapi.admission.base import MINUTE
from agentapi.admission.scripts import SCRIPTS
from agentapi.redis.scripts import Scripts
from tests.conformance.traffic import Clock, TrafficBench, memory_traffic
from tests.property.repeating import RepeatingScripts, Repeats, answers_of
from tests.property.test_repeats import EXAMPLES
from tests.property.test_traffic import TrafficMachine

RULE = BreakerRule()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def traffic_twice(url: str, client: redis.Redis, repeats: Repeats) -> RedisTraffic:
    """Traffic on an emptied Redis, every script of it run twice, by a clock that the test sets."""
    client.flushall()
    traffic = RedisTraffic(load_settings(redis_url=url), client)
    scripts = RepeatingScripts(client, SCRIPTS, repeats)
    traffic._scripts = cast("Scripts", scripts)
    return traffic


def walk(bench: TrafficBench) -> set[Reason]:
    """Every script by each of its ways. Returns why calls had to wait."""
    waits = [*_budgets(bench), *_holds(bench), *_breakers(bench)]
    return {wait.reason for wait in waits if wait is not None}


def _budgets(bench: TrafficBench) -> Iterator[Wait | None]:
    yield bench.admit()
    limits = {"most_requests": 4, "most_tokens": 100}
    asks = [bench.ask(call_id=f"call-{number}", tokens=30, **limits) for number in range(4)]
    for ask in asks:
        yield bench.traffic.admit(ask)
        bench.clock.advance(1)
    for ask, used in zip(asks, (30, 10, 70, 5), strict=True):
        bench.traffic.settle(ask, used)
        bench.clock.advance(0.1)
    yield bench.admit(tokens=10, **limits)
    yield bench.admit(tokens=1, most_requests=2)
    bench.traffic.used(["p"])
    # Some have left the window, then all.
    bench.clock.advance(MINUTE - 3)
    yield bench.admit(tokens=10, **limits)
    bench.traffic.settle(asks[2], 5)
    bench.clock.advance(2 * MINUTE)
    for used in (1, 60):
        bench.traffic.settle(asks[0], used)
    yield bench.admit(tokens=100, **limits)


def _holds(bench: TrafficBench) -> Iterator[Wait | None]:
    for hold in (10, 5, 30):
        bench.fail(hold=hold, counts=False)
        yield bench.admit()
    bench.clock.advance(30)
    yield bench.admit(most_requests=1)


def _breakers(bench: TrafficBench) -> Iterator[Wait | None]:
    probe = bench.ask(alone=False)
    for _ in range(2):
        bench.fail("long ago")
        bench.clock.advance(RULE.within + 1)
    bench.traffic.answered("p")
    for answered in (True, False):
        for number in range(RULE.failures - 1):
            bench.fail(f"failure-{number}", hold=number or None)
        if answered:
            bench.traffic.answered("p")
    bench.clock.advance(RULE.failures)
    yield bench.traffic.admit(probe)
    bench.fail("the last")
    yield bench.admit(alone=False)
    yield bench.admit(alone=True)
    # One that is open stays so; then the probe fails, the next is answered.
    bench.fail("from before")
    bench.traffic.answered("p")
    bench.clock.advance(RULE.open_for)
    yield bench.traffic.admit(probe)
    yield bench.admit(alone=False)
    bench.fail("not the probe")
    bench.fail(probe.call_id, hold=1)
    yield bench.admit(alone=False)
    bench.clock.advance(RULE.longest)
    yield bench.admit(alone=False, most_requests=5, tokens=1)
    bench.traffic.answered("p")
    yield bench.admit(alone=False)


def test_every_script_about_providers(redis_url: str, client: redis.Redis) -> None:
    repeats = Repeats(set())
    bench = TrafficBench(traffic_twice(redis_url, client, repeats), Clock(client))
    assert walk(bench) == set(Reason)
    assert repeats.covered == set(SCRIPTS.names), "walk() must repeat each script"
    assert answers_of(SCRIPTS) <= repeats.answers


def test_every_call_about_providers_at_every_point(redis_url: str, client: redis.Redis) -> None:
    def make() -> tuple[list[Traffic], list[Clock]]:
        twin, twin_clock = memory_traffic()
        twice = traffic_twice(redis_url, client, Repeats(set()))
        return [twin, twice], [twin_clock, Clock(client)]

    machine = type("Machine", (TrafficMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(machine, settings=EXAMPLES)
