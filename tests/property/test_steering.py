"""Steering, as a state machine: messages join a running turn in order, once, over takeovers.

Messages that it does not take any more are turns of their own, in the order of their acceptance.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentapi.signals import LeaseLost
from agentapi.stores import Claim, Lease
from agentapi.turns import OnBusy, Step, TurnStatus, UserStep
from tests.conformance.stores import Bench, C, completed, in_memory, model_step, on_redis


class Steering(RuleBasedStateMachine):
    """One conversation, whose turns are steered."""

    make_bench: Callable[[], Bench]

    def __init__(self) -> None:
        super().__init__()
        self.bench = type(self).make_bench()
        self.store = self.bench.store
        self.lease: Lease | None = None
        self.zombies: list[Lease] = []
        self.inbox: list[str] = []
        self.steers: dict[str, str] = {}
        self.said: dict[str, str] = {}
        self.steps: list[Step] = []
        self.joined: list[str] = []
        self.count = 0

    def teardown(self) -> None:
        self.store.close()

    @initialize()
    def begin(self) -> None:
        self._enqueue(OnBusy.ENQUEUE)
        self._claim()

    def _enqueue(self, on_busy: OnBusy) -> str:
        text = f'message {self.count} \\ "%1" ü'
        self.count += 1
        turn_id = self.bench.enqueue(message=text, on_busy=on_busy)
        self.inbox.append(turn_id)
        self.said[turn_id] = text
        return turn_id

    def _claim(self) -> None:
        claim = self.bench.try_claim(self.inbox[0])
        assert isinstance(claim, Claim)
        self.lease = claim.lease
        assert list(claim.steps) == self.steps
        assert claim.turn.steered or not self.waiting

    @property
    def waiting(self) -> list[str]:
        """Messages that wait to join the turn that runs."""
        return [t for t in self.inbox if self.steers.get(t) == self.inbox[0]]

    @rule(steer=st.booleans())
    def say(self, steer: bool) -> None:
        if len(self.inbox) > 20:
            return
        begun = bool(self.inbox) and self.store.turn(self.inbox[0]).attempt > 0
        head = self.inbox[0] if self.inbox else ""
        turn_id = self._enqueue(OnBusy.STEER if steer else OnBusy.ENQUEUE)
        if steer and begun:
            self.steers[turn_id] = head

    @precondition(lambda self: self.lease is not None)
    @rule()
    def record(self) -> None:
        assert self.lease is not None
        step = model_step(f"c{len(self.steps)}")
        answer = self.store.record(self.lease, len(self.steps), step)
        # A message that was cancelled meanwhile costs the worker one look for nothing.
        assert answer.steered or not self.waiting
        self.steps.append(step)

    @precondition(lambda self: self.lease is not None)
    @rule(repeats=st.integers(1, 3))
    def join(self, repeats: int) -> None:
        assert self.lease is not None
        waiting, index = self.waiting, len(self.steps)
        for _ in range(repeats):
            steps = self.store.steer(self.lease, index)
            assert [step.message.content for step in steps] == [self.said[t] for t in waiting]
        self.steps += steps
        self.inbox = [turn_id for turn_id in self.inbox if turn_id not in waiting]
        self.joined += waiting
        for turn_id in waiting:
            assert self.store.turn(turn_id).turn_id == self.inbox[0]
            [event] = self.store.events({turn_id: -1}, 0)[turn_id]
            assert (event.type, event.data) == ("joined", {"turn": self.inbox[0]})

    @precondition(lambda self: self.lease is not None)
    @rule()
    def take_over(self) -> None:
        assert self.lease is not None
        self.zombies.append(self.lease)
        self.bench.expire_lease(C)
        self._claim()

    @precondition(lambda self: self.zombies)
    @rule(data=st.data())
    def zombie(self, data: st.DataObject) -> None:
        zombie = data.draw(st.sampled_from(self.zombies))
        with pytest.raises(LeaseLost):
            self.store.steer(zombie, 0)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        turn_id = data.draw(st.sampled_from(self.waiting))
        self.store.cancel(turn_id)
        self.inbox.remove(turn_id)
        assert self.store.turn(turn_id).status is TurnStatus.CANCELLED

    @precondition(lambda self: self.lease is not None)
    @rule()
    def end(self) -> None:
        assert self.lease is not None
        following = self.store.commit(self.lease, completed(self.lease.turn_id))
        self.zombies.append(self.lease)
        del self.inbox[0]
        self.lease, self.steps = None, []
        assert ([following.turn_id] if following else []) == self.inbox[:1]
        with contextlib.suppress(IndexError):
            self._claim()

    @precondition(lambda self: self.lease is None and self.inbox)
    @rule()
    def go_on(self) -> None:
        self._claim()

    @rule()
    def everything_is_said_once(self) -> None:
        texts = [s.message.content for s in self.steps if isinstance(s, UserStep)]
        assert len(texts) == len(set(texts))
        for turn_id in self.joined:
            assert turn_id not in self.inbox


LEASE = 3600
"""Seconds: an example must not outlast it on a busy machine."""

SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
)


def test_steering_in_memory() -> None:
    class InMemory(Steering):
        make_bench = staticmethod(lambda: in_memory(lease_ttl=LEASE))

    run_state_machine_as_test(InMemory, settings=SETTINGS)


def test_steering_on_redis(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)

    def fresh() -> Bench:
        client.flushdb()
        return on_redis(redis_url, lease_ttl=LEASE)

    class OnRedis(Steering):
        make_bench = staticmethod(fresh)

    run_state_machine_as_test(OnRedis, settings=SETTINGS)
    client.close()
