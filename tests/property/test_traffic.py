"""Budgets, holds and breakers in any order of calls, repeats and deaths.

Redis and its twin answer the same to everything; and a log of a few lines, which forgets nothing,
says whether the answers keep the promises.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)

from agentapi.admission import MINUTE, Ask, Reason, Standing, Traffic, Wait
from tests.conformance.traffic import Clock, memory_traffic, redis_traffic

WINDOW = round(MINUTE * 1000)
REQUESTS, TOKENS = 3, 12


@dataclass
class Charge:
    """What was charged, and when; kept for ever."""

    at: int
    tokens: int
    requests: int = 1


class TrafficMachine(RuleBasedStateMachine):
    """Workers that ask, end, die and repeat themselves, by one clock."""

    make: Callable[[], tuple[list[Traffic], list[Clock]]]
    asks = Bundle("asks")
    admitted = Bundle("admitted")

    def __init__(self) -> None:
        super().__init__()
        self.both, self.clocks = type(self).make()
        self.numbers = count()
        self.charges: dict[str, Charge] = {}
        self.held_until = 0

    @property
    def now(self) -> int:
        return self.clocks[0].now

    def answer_of(self, act: Callable[[Traffic], Wait | Standing | None]) -> Wait | Standing | None:
        """What both say."""
        one, two = (act(traffic) for traffic in self.both)
        assert one == two
        return one

    def sums(self, begin: int, end: int, *, more: bool = True) -> tuple[int, int]:
        found = [
            charge
            for name, charge in self.charges.items()
            if begin <= charge.at <= end and (more or not name.endswith(":more"))
        ]
        return sum(c.requests for c in found), sum(c.tokens for c in found)

    def fits(self, ask: Ask, at: int) -> bool:
        requests, tokens = self.sums(at - WINDOW, at)
        return requests + 1 <= REQUESTS and tokens + ask.tokens <= TOKENS

    @rule(seconds=st.sampled_from([0.001, 1.0, 20.0, 30.0, 59.999, 60.0]))
    def time_passes(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)

    @rule(target=asks, tokens=st.sampled_from([1, 1, 2, 3, 8, TOKENS]), alone=st.booleans())
    def a_call_comes_up(self, tokens: int, alone: bool) -> Ask:
        return Ask(
            call_id=f"call-{next(self.numbers)}",
            provider="p",
            tokens=tokens,
            most_requests=REQUESTS,
            most_tokens=TOKENS,
            alone=alone,
        )

    @rule(target=admitted, ask=consumes(asks))
    def it_asks(self, ask: Ask) -> object:
        wait = self.answer_of(lambda traffic: traffic.admit(ask))
        if isinstance(wait, Wait):
            self.refused(ask, wait)
            return multiple()
        assert self.now >= self.held_until
        assert self.fits(ask, self.now)
        self.charges[ask.call_id] = Charge(self.now, ask.tokens)
        return ask

    @rule(ask=admitted)
    def it_asks_again(self, ask: Ask) -> None:
        """The answer was lost on its way: the same place."""
        if self.charges[ask.call_id].at >= self.now - WINDOW:
            assert self.answer_of(lambda traffic: traffic.admit(ask)) is None

    def refused(self, ask: Ask, wait: Wait) -> None:
        until = self.now + round(wait.seconds * 1000)
        match wait.reason:
            case Reason.HOLD:
                assert until == self.held_until > self.now
            case Reason.BUDGET:
                # Not a millisecond too long, so no place is lost; and not one too short.
                assert self.fits(ask, until)
                assert not self.fits(ask, until - 1)
            case Reason.OPEN:
                assert not ask.alone
                assert 0 < wait.seconds <= 30

    @rule(ask=admitted, used=st.integers(1, 2 * TOKENS), times=st.integers(1, 2))
    def it_ends(self, ask: Ask, used: int, times: int) -> None:
        for _ in range(times):
            self.answer_of(lambda traffic: traffic.settle(ask, used))
        charge, more = self.charges[ask.call_id], f"{ask.call_id}:more"
        live = charge.at >= self.now - WINDOW
        extra = self.charges.get(more)
        if live and used < charge.tokens:
            charge.tokens = used
        elif used > ask.tokens and (extra is None or extra.at < self.now - WINDOW):
            if extra is not None:
                self.charges[f"{next(self.numbers)}:more"] = extra
            self.charges[more] = Charge(self.now, used - ask.tokens, requests=0)

    @rule(ask=admitted, hold=st.sampled_from([None, 0.5, 30.0]), counts=st.booleans())
    def it_fails(self, ask: Ask, hold: float | None, counts: bool) -> None:
        standing = self.answer_of(
            lambda traffic: traffic.failed("p", ask.call_id, hold=hold, counts=counts)
        )
        assert isinstance(standing, Standing)
        if hold is not None:
            self.held_until = max(self.held_until, self.now + round(hold * 1000))
        assert round(standing.held * 1000) == max(self.held_until - self.now, 0)

    @rule(numbers=st.lists(st.integers(0, 20), min_size=5, max_size=5, unique=True))
    def an_outage(self, numbers: list[int]) -> None:
        for number in numbers:
            self.one_of_an_outage(f"outage-{number}")

    def one_of_an_outage(self, call_id: str) -> None:
        self.answer_of(lambda traffic: traffic.failed("p", call_id, hold=None, counts=True))

    @rule()
    def an_answer(self) -> None:
        self.answer_of(lambda traffic: traffic.answered("p"))

    def teardown(self) -> None:
        # What was reserved is within the limits in every window there ever was.
        for charge in self.charges.values():
            requests, tokens = self.sums(charge.at, charge.at + WINDOW, more=False)
            assert requests <= REQUESTS
            assert tokens <= TOKENS
        # All that was taken comes back, whoever has died.
        for clock in self.clocks:
            clock.advance(2 * MINUTE)
        whole = Ask(
            call_id="last", provider="p", tokens=TOKENS, most_requests=1, most_tokens=TOKENS
        )
        assert self.answer_of(lambda traffic: traffic.admit(whole)) is None


def test_budgets_hold_in_any_order(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = redis.Redis.from_url(redis_url)
    on_redis, redis_clock = redis_traffic(redis_url, monkeypatch)

    def make() -> tuple[list[Traffic], list[Clock]]:
        client.flushall()
        redis_clock.set(redis_clock.now)
        twin, twin_clock = memory_traffic()
        twin_clock.set(redis_clock.now)
        return [twin, on_redis], [twin_clock, redis_clock]

    machine = type("Machine", (TrafficMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            derandomize="CI" in os.environ,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    on_redis.close()
    client.close()
