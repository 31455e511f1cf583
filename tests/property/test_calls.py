"""Calls that wait, as a state machine: decisions, replies, takeovers and zombies in any order.

A model of a few lines says what should be; both stores must agree with it. No decision is given to
two workers as fresh, none is lost, and the last reply always wakes the turn.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

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

from agentapi.errors import CallNotPending, LeaseLost
from agentapi.ids import create_turn_id
from agentapi.stores import Lease, Refusal, Suspended
from agentapi.turns import (
    Answers,
    CallBook,
    ChildReply,
    ChildTurn,
    ClientCall,
    ClientOutput,
    Decision,
    HeldCalls,
    Question,
    TurnStatus,
    Verdict,
)
from tests.conformance.stores import Bench, C, in_memory, on_redis

ASKED = ("q1", "q2", "q3")
CHILDREN = tuple(
    ChildTurn(
        call_id=call_id,
        turn_id=create_turn_id(f"child:{call_id}:{number}", "once"),
        conversation_id=f"child:{call_id}:{number}",
        agent="b",
        input="hi",
    )
    for call_id, number in (("k1", 0), ("k1", 1), ("k2", 0))
)
CLIENT = tuple(
    ClientCall(call_id=call_id, tool="t", arguments={}, number=10 + number)
    for number, call_id in enumerate(("f1", "f2"))
)
FUNCTIONS = tuple(call.call_id for call in CLIENT)
OUTPUTS = (ClientOutput(text="one"), ClientOutput(text="two", is_error=True))
DECISIONS = (
    Decision(verdict=Verdict.APPROVED),
    Decision(verdict=Verdict.REJECTED),
    Decision(verdict=Verdict.EDITED, arguments={"amount": 5}),
)


class Calls(RuleBasedStateMachine):
    """One turn with three questions and three children."""

    make_bench: Callable[[], Bench]

    def __init__(self) -> None:
        super().__init__()
        self.bench = type(self).make_bench()
        self.calls = self.bench.store.calls
        self.lease: Lease | None = None
        self.zombies: list[Lease] = []
        self.asked = False
        self.decided: dict[str, Decision] = {}
        self.given: dict[str, int] = {}
        self.replied: dict[str, ChildReply] = {}
        self.outputs: dict[str, ClientOutput] = {}
        self.heard: set[str] = set()
        self.awake = True

    def teardown(self) -> None:
        self.bench.store.close()

    @initialize()
    def begin(self) -> None:
        self.turn_id = self.bench.enqueue()
        self._claim()

    def _claim(self) -> None:
        claim = self.bench.claim(self.turn_id)
        self.lease = claim.lease
        self._given(claim.calls, claim.lease.epoch)

    def _given(self, book: CallBook, epoch: int) -> None:
        """Each decision is fresh for exactly one epoch."""
        for call_id in self.decided:
            self.given.setdefault(call_id, epoch)
        assert dict(book.decisions) == self.decided
        assert book.begun_before == {c for c, given in self.given.items() if given != epoch}
        assert dict(book.replies) == self.replied
        assert dict(book.outputs) == self.outputs
        self.heard = set(self.outputs)

    @precondition(lambda self: self.lease is not None)
    @rule(repeats=st.integers(1, 3))
    def suspend(self, repeats: int) -> None:
        assert self.lease is not None
        questions = [
            Question(call_id=call_id, tool="t", arguments={}, number=number)
            for number, call_id in enumerate(ASKED)
            if call_id not in self.decided or call_id not in self.given
        ]
        children = [child for child in CHILDREN if child.turn_id not in self.replied]
        client = [call for call in CLIENT if call.call_id not in self.heard]
        news = any(call_id not in self.given for call_id in self.decided)
        news = news or (bool(client) and all(c.call_id in self.outputs for c in client))
        held = HeldCalls(questions=questions, children=children, client=client, responses=1)
        answer, *again = (self.calls.suspend(self.lease, held) for _ in range(repeats))
        assert all(repeat == answer for repeat in again)
        self.asked = True
        if news:
            assert isinstance(answer, CallBook)
            self._given(answer, self.lease.epoch)
        else:
            assert answer is Suspended.PARKED
            self.zombies.append(self.lease)
            self.lease = None
            self.awake = False

    @precondition(lambda self: self.asked)
    @rule(call_id=st.sampled_from(ASKED), decision=st.sampled_from(DECISIONS))
    def decide(self, call_id: str, decision: Decision) -> None:
        known = self.decided.get(call_id)
        if known is not None and known != decision:
            with pytest.raises(CallNotPending):
                self.calls.decide(self.turn_id, call_id, decision)
            return
        wakeup = self.calls.decide(self.turn_id, call_id, decision)
        self.decided[call_id] = decision
        assert (wakeup is not None) == (self.lease is None)
        self.awake = self.awake or self.lease is None

    @precondition(lambda self: self.asked)
    @rule(outputs=st.dictionaries(st.sampled_from(FUNCTIONS), st.sampled_from(OUTPUTS), min_size=1))
    def answer(self, outputs: dict[str, ClientOutput]) -> None:
        answers = Answers(outputs=outputs)
        if any(self.outputs.get(c, o) != o for c, o in outputs.items()):
            # All or none.
            with pytest.raises(CallNotPending):
                self.calls.answer(self.turn_id, answers)
            return
        wakeup = self.calls.answer(self.turn_id, answers)
        self.outputs |= outputs
        whole = len(self.outputs) == len(CLIENT)
        assert (wakeup is not None) == (whole and self.lease is None)
        self.awake = self.awake or (whole and self.lease is None)

    @precondition(lambda self: self.asked)
    @rule(child=st.sampled_from(CHILDREN))
    def deliver(self, child: ChildTurn) -> None:
        reply = ChildReply(turn_id=child.turn_id, status=TurnStatus.COMPLETED, text="yo")
        wakeup = self.calls.deliver(self.turn_id, reply)
        if child.turn_id in self.replied:
            all_replied = len(self.replied) == len(CHILDREN)
            assert (wakeup is not None) == (all_replied and self.lease is None and self.awake)
            return
        self.replied[child.turn_id] = reply
        last = len(self.replied) == len(CHILDREN)
        assert (wakeup is not None) == (last and self.lease is None)
        self.awake = self.awake or (last and self.lease is None)

    @precondition(lambda self: self.lease is None)
    @rule()
    def wake(self) -> None:
        if self.awake:
            self._claim()
        else:
            assert isinstance(self.bench.try_claim(self.turn_id), Refusal)

    @precondition(lambda self: self.lease is not None)
    @rule()
    def take_over(self) -> None:
        assert self.lease is not None
        self.zombies.append(self.lease)
        self.bench.expire_lease(C)
        self._claim()

    @precondition(lambda self: self.zombies and self.lease is not None)
    @rule(data=st.data())
    def zombie(self, data: Any) -> None:
        zombie = data.draw(st.sampled_from(self.zombies))
        held = HeldCalls(questions=[Question(call_id="z", tool="t", arguments={})])
        with contextlib.suppress(LeaseLost):
            # One that parked the turn itself may be told so again; nothing is changed by it.
            assert self.calls.suspend(zombie, held) is Suspended.PARKED
        assert "z" not in {call.call_id for call in self.calls.pending(self.turn_id)}

    @precondition(lambda self: self.asked)
    @rule()
    def look(self) -> None:
        waiting = [call.call_id for call in self.calls.pending(self.turn_id)]
        assert waiting == [
            *(call_id for call_id in ASKED if call_id not in self.decided),
            *(call.call_id for call in CLIENT if call.call_id not in self.outputs),
        ]
        assert [s.responses for s in self.bench.store.turn(self.turn_id).segments] in ([], [1])
        awaited = {child.turn_id for child, waits in self.calls.children(self.turn_id) if waits}
        assert awaited == {child.turn_id for child in CHILDREN} - set(self.replied)


LEASE = 3600
"""Seconds: an example must not outlast it on a busy machine."""

SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
)


def test_calls_in_memory() -> None:
    class InMemory(Calls):
        make_bench = staticmethod(lambda: in_memory(lease_ttl=LEASE))

    run_state_machine_as_test(InMemory, settings=SETTINGS)


def test_calls_on_redis(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)

    def fresh() -> Bench:
        client.flushdb()
        return on_redis(redis_url, lease_ttl=LEASE)

    class OnRedis(Calls):
        make_bench = staticmethod(fresh)

    run_state_machine_as_test(OnRedis, settings=SETTINGS)
    client.close()
