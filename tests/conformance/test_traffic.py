"""Budgets, holds and breakers of providers, on Redis and in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from agentapi import load_settings
from agentapi.admission import (
    Ask,
    BreakerRule,
    InMemoryTraffic,
    Reason,
    RedisTraffic,
    Standing,
    Traffic,
    Used,
    Wait,
)
from tests.conformance.traffic import TrafficBench, memory_traffic, redis_traffic


@pytest.fixture(params=["memory", "redis"])
def bench(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrafficBench]:
    if request.param == "memory":
        made = TrafficBench(*memory_traffic())
    else:
        made = TrafficBench(*redis_traffic(request.getfixturevalue("redis_url"), monkeypatch))
    yield made
    made.traffic.close()


@pytest.fixture(params=["memory", "redis"])
def real(request: pytest.FixtureRequest) -> Iterator[Traffic]:
    """On its own clock."""
    made: Traffic = InMemoryTraffic()
    if request.param == "redis":
        made = RedisTraffic(load_settings(redis_url=request.getfixturevalue("redis_url")))
    yield made
    made.close()


def budget(seconds: float) -> Wait:
    return Wait(reason=Reason.BUDGET, seconds=seconds)


def test_requests_of_a_minute(bench: TrafficBench) -> None:
    assert bench.admit(most_requests=2) is None
    bench.clock.advance(10)
    assert bench.admit(most_requests=2) is None
    assert bench.admit(most_requests=2) == budget(50.001)
    bench.clock.advance(50)
    assert bench.admit(most_requests=2) == budget(0.001)
    bench.clock.advance(0.001)
    assert bench.admit(most_requests=2) is None
    assert bench.admit(most_requests=2) == budget(10)


def test_tokens_of_a_minute_and_who_waits_for_how_much(bench: TrafficBench) -> None:
    assert bench.admit(most_tokens=100, tokens=60) is None
    bench.clock.advance(20)
    assert bench.admit(most_tokens=100, tokens=40) is None
    assert bench.admit(most_tokens=100, tokens=60) == budget(40.001)
    assert bench.admit(most_tokens=100, tokens=61) == budget(60.001)


def test_what_is_charged_to_budgets(bench: TrafficBench) -> None:
    ask = bench.ask(most_tokens=100, tokens=60)
    assert bench.traffic.admit(ask) is None
    bench.traffic.settle(ask, 70)
    bench.clock.advance(30)
    assert bench.admit(most_tokens=100, tokens=5) is None
    assert bench.traffic.used(["p"]) == {"p": Used(requests=2, tokens=75)}
    bench.clock.advance(30.001)
    assert bench.traffic.used(["p"]) == {"p": Used(requests=1, tokens=5)}
    bench.clock.advance(30)
    assert bench.traffic.used(["p"]) == {"p": Used()}


def test_an_empty_window_takes_the_largest_call(bench: TrafficBench) -> None:
    assert bench.admit(most_tokens=100, tokens=100) is None
    assert bench.admit(most_tokens=100, tokens=1) == budget(60.001)


def test_a_repeat_takes_one_place(bench: TrafficBench) -> None:
    ask = bench.ask(most_requests=2, most_tokens=100, tokens=50)
    for _ in range(3):
        assert bench.traffic.admit(ask) is None
    assert bench.admit(most_requests=2, most_tokens=100, tokens=50) is None


def test_providers_do_not_share(bench: TrafficBench) -> None:
    assert bench.admit(most_requests=1) is None
    other = bench.ask(most_requests=1)
    assert bench.traffic.admit(other) is not None
    elsewhere = type(other)(call_id="x", provider="q", most_requests=1)
    assert bench.traffic.admit(elsewhere) is None


def test_what_was_not_used_is_free_at_once(bench: TrafficBench) -> None:
    ask = bench.ask(most_tokens=100, tokens=90)
    assert bench.traffic.admit(ask) is None
    for _ in range(2):
        bench.traffic.settle(ask, 30)
    assert bench.admit(most_tokens=100, tokens=71) == budget(60.001)
    assert bench.admit(most_tokens=100, tokens=70) is None


def test_what_was_used_beyond_is_charged_when_it_is_known(bench: TrafficBench) -> None:
    ask = bench.ask(most_requests=2, most_tokens=100, tokens=10)
    assert bench.traffic.admit(ask) is None
    bench.clock.advance(30)
    for _ in range(2):
        bench.traffic.settle(ask, 60)
    # It is no request of its own.
    assert bench.admit(most_requests=2, most_tokens=100, tokens=41) == budget(30.001)
    bench.clock.advance(30.001)
    assert bench.admit(most_requests=2, most_tokens=100, tokens=51) == budget(30)
    assert bench.admit(most_requests=2, most_tokens=100, tokens=50) is None


def test_a_call_that_took_longer_than_the_window(bench: TrafficBench) -> None:
    asks = [bench.ask(most_tokens=100, tokens=50) for _ in range(2)]
    for ask in asks:
        assert bench.traffic.admit(ask) is None
    bench.clock.advance(90)
    bench.traffic.settle(asks[0], 20)
    bench.traffic.settle(asks[1], 80)
    assert bench.admit(most_tokens=100, tokens=71) == budget(60.001)
    assert bench.admit(most_tokens=100, tokens=70) is None


def test_a_worker_that_dies_takes_no_place_with_it(bench: TrafficBench) -> None:
    for _ in range(3):
        for _ in range(5):
            assert bench.admit(most_requests=5, most_tokens=500, tokens=100) is None
        assert bench.admit(most_requests=5) is not None
        bench.clock.advance(60.001)


def test_many_charges(bench: TrafficBench) -> None:
    """The log is read page by page."""
    for _ in range(450):
        assert bench.admit(most_tokens=1000, tokens=1) is None
        bench.clock.advance(0.1)
    assert bench.admit(most_tokens=1000, tokens=900) == budget(49.901)
    bench.clock.advance(61)
    assert bench.admit(most_tokens=1000, tokens=1000) is None


def test_a_hold_holds_everybody_until_then_and_is_never_shortened(bench: TrafficBench) -> None:
    standing = bench.fail(hold=20, counts=False)
    assert standing == Standing(held=20)
    assert bench.fail(hold=5, counts=False).held == 20
    bench.clock.advance(19.999)
    assert bench.admit() == Wait(reason=Reason.HOLD, seconds=0.001)
    assert bench.admit(most_requests=1) == Wait(reason=Reason.HOLD, seconds=0.001)
    bench.clock.advance(0.001)
    assert bench.admit(most_requests=1) is None
    assert bench.admit(most_requests=1) == budget(60.001)


RULE = BreakerRule()


def open_breaker(bench: TrafficBench) -> None:
    for _ in range(5):
        standing = bench.fail()
    assert standing.open == RULE.open_for


def test_failures_in_a_short_time_open_the_breaker(bench: TrafficBench) -> None:
    for _ in range(4):
        assert bench.fail() == Standing()
    assert bench.admit(alone=False) is None
    assert bench.fail() == Standing(open=1, probes=True)
    assert bench.fail() == Standing(open=1)
    assert bench.admit(alone=False) == Wait(reason=Reason.OPEN, seconds=1)
    # Who has nobody else to ask is not stopped.
    assert bench.admit(alone=True) is None


def test_failures_far_apart_do_not(bench: TrafficBench) -> None:
    for _ in range(9):
        assert bench.fail().open is None
        bench.clock.advance(8)


def test_an_answer_in_between_is_a_new_beginning(bench: TrafficBench) -> None:
    for _ in range(3):
        for _ in range(4):
            assert bench.fail().open is None
        assert bench.traffic.answered("p") == Standing()


def test_a_repeated_failure_counts_once(bench: TrafficBench) -> None:
    for _ in range(9):
        assert bench.fail("same").open is None


def test_one_call_probes_and_its_answer_closes(bench: TrafficBench) -> None:
    open_breaker(bench)
    bench.clock.advance(RULE.open_for)
    probe = bench.ask(alone=False)
    assert bench.traffic.admit(probe) is None
    assert bench.traffic.admit(probe) is None
    bench.clock.advance(1)
    assert bench.admit(alone=False) == Wait(reason=Reason.OPEN, seconds=29)
    assert bench.traffic.answered("p") == Standing()
    assert bench.admit(alone=False) is None
    assert bench.admit(alone=False) is None


def test_a_probe_that_fails_opens_it_again(bench: TrafficBench) -> None:
    open_breaker(bench)
    for open_for in (2, 4, 8, 10, 10):
        bench.clock.advance(11)
        probe = bench.ask(alone=False)
        assert bench.traffic.admit(probe) is None
        # Earlier calls end late, and say nothing new.
        late = bench.fail()
        assert (late.open or 0) < 0
        assert not late.probes
        for _ in range(2):
            assert bench.fail(probe.call_id) == Standing(open=open_for, probes=True)
        assert bench.admit(alone=False) == Wait(reason=Reason.OPEN, seconds=open_for)
    bench.clock.advance(10)
    assert bench.traffic.answered("p") == Standing()
    open_breaker(bench)


def test_a_probe_that_never_ends_lets_another_one_through(bench: TrafficBench) -> None:
    open_breaker(bench)
    bench.clock.advance(RULE.open_for)
    assert bench.admit(alone=False) is None
    bench.clock.advance(29.999)
    assert bench.admit(alone=False) is not None
    bench.clock.advance(0.001)
    assert bench.admit(alone=False) is None
    assert bench.admit(alone=False) is not None


def test_an_answer_from_before_does_not_close_an_open_breaker(bench: TrafficBench) -> None:
    open_breaker(bench)
    assert bench.traffic.answered("p").open == RULE.open_for


def test_who_finds_no_room_in_the_budget_does_not_probe(bench: TrafficBench) -> None:
    assert bench.admit(most_requests=1) is None
    open_breaker(bench)
    bench.clock.advance(30)
    assert bench.admit(most_requests=1, alone=False) == budget(30.001)
    bench.clock.advance(30.001)
    assert bench.admit(most_requests=1, alone=False) is None


def test_how_providers_stand(real: Traffic) -> None:
    for n in range(5):
        real.failed("down", str(n), hold=None, counts=True)
    real.failed("busy", "x", hold=50, counts=False)
    found = real.standings(["down", "busy", "new"])
    assert found["new"] == Standing()
    assert (found["down"].held, found["busy"].open) == (0, None)
    # On a busy machine it may be probed already: then it is less than 0.
    assert found["down"].open is not None
    assert found["down"].open <= RULE.open_for
    assert 0 < found["busy"].held <= 50


def test_the_budgets_of_several_providers(real: Traffic) -> None:
    assert real.used([]) == {}
    assert real.admit(Ask(call_id="x", provider="p", tokens=7, most_tokens=10)) is None
    assert real.used(["p", "other"]) == {"p": Used(requests=1, tokens=7), "other": Used()}


def test_threads_share_a_budget_exactly(real: Traffic) -> None:
    admitted: Counter[bool] = Counter()
    tally = threading.Lock()

    def ask_on(thread: int) -> None:
        bench = TrafficBench(real, memory_traffic()[1])
        for n in range(30):
            wait = bench.admit(call_id=f"{thread}-{n}", most_requests=100)
            with tally:
                admitted[wait is None] += 1

    threads = [threading.Thread(target=ask_on, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted == {True: 100, False: 80}


def test_nothing_stays_in_redis_for_ever(redis_url: str) -> None:
    traffic = RedisTraffic(load_settings(redis_url=redis_url))
    bench = TrafficBench(traffic, memory_traffic()[1])
    ask = bench.ask(most_tokens=100, tokens=10)
    traffic.admit(ask)
    traffic.settle(ask, 50)
    bench.fail(hold=5, counts=True)
    for _ in range(5):
        bench.fail()
    bench.fail("x", hold=86_400, counts=True)
    traffic.failed("q", "y", hold=None, counts=True)
    client = redis.Redis.from_url(redis_url)
    left = {key.decode(): client.pttl(key) for key in client.scan_iter("agentapi:provider:*")}
    client.close()
    traffic.close()
    assert set(left) == {
        "agentapi:provider:{p}:state",
        "agentapi:provider:{p}:times",
        "agentapi:provider:{p}:charges",
        "agentapi:provider:{q}:failures",
    }
    assert 86_400_000 < left.pop("agentapi:provider:{p}:state") <= 87_000_000
    assert all(0 < ms <= 61_000 for ms in left.values())
