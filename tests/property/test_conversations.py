"""Conversations outside of their turns: the same calls on both stores, each made twice, give
the same answers and the same histories."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from agentapi.conversation.messages import UserMessage
from agentapi.errors import ConversationBusy
from agentapi.ids import create_turn_id
from agentapi.stores import (
    ConversationRecord,
    Dropped,
    ForgottenTurn,
    Fork,
    OpenConversation,
    Place,
    Reading,
    Search,
    SearchOn,
)
from agentapi.turns import OnAbort
from tests.conformance.stores import Bench, C, beside, completed
from tests.property.repeating import Repeats, in_memory_twice, on_redis_twice

EXAMPLES = settings(
    # Shrinking would take minutes: each of its steps talks to Redis.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

NAMES = st.sampled_from([C, beside(C)])
OPERATIONS = st.sampled_from(["one", "two", "three"])
TENANTS = st.sampled_from(["acme", "acme", "acme", "evil"])


class TwoStores(RuleBasedStateMachine):
    """Makes each call on the store in memory and on the one in Redis.

    Attributes:
        steps: Counts calls, so that steps and turns of both stores get the same names.
    """

    benches: tuple[Bench, Bench]
    turns = Bundle("turns")
    remains = Bundle("remains")

    @staticmethod
    def make_benches() -> tuple[Bench, Bench]:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.benches = self.make_benches()
        self.steps = 0

    def teardown(self) -> None:
        for bench in getattr(self, "benches", ()):
            bench.store.close()

    def both(self, call: Callable[[Bench], Any]) -> Any:
        """What both stores answer."""
        first, second = (_plain(call(bench)) for bench in self.benches)
        assert first == second
        return first

    def name(self) -> str:
        self.steps += 1
        return f"step {self.steps}"

    @rule(
        name=NAMES,
        tenant=TENANTS,
        create=st.booleans(),
        operation=OPERATIONS,
        metadata=st.none() | st.just({"a": "b"}),
        count=st.integers(0, 5),
    )
    def open(
        self,
        name: str,
        tenant: str,
        create: bool,
        operation: str,
        metadata: dict[str, str] | None,
        count: int,
    ) -> None:
        opening = OpenConversation(
            conversation_id=name,
            tenant_id=tenant,
            create=create,
            metadata=metadata,
            operation=operation,
            messages=[UserMessage(content=f"{operation} {number}") for number in range(count)],
        )
        self.both(lambda bench: bench.store.conversations.open(opening))

    @rule(target=turns, name=NAMES)
    def enqueue(self, name: str) -> Any:
        turn_id = create_turn_id(name, self.name())
        tenants = {b.store.conversations.find(name, "evil") is None for b in self.benches}
        if tenants != {True}:
            return multiple()
        more: Any = {"turn_id": turn_id, "tenant_id": "acme", "on_abort": OnAbort.DROP}

        def accepted(bench: Bench) -> bool:
            try:
                bench.enqueue(name, **more)
            except ConversationBusy:
                return False
            return True

        return (name, turn_id) if self.both(accepted) else multiple()

    @rule(turn=turns, complete=st.booleans())
    def end(self, turn: tuple[str, str], complete: bool) -> None:
        name, turn_id = turn
        token = self.name()

        def end(bench: Bench) -> Any:
            claim = bench.try_claim(turn_id, name, token=token)
            if hasattr(claim, "reason"):
                return claim.reason
            if complete:
                return bench.store.commit(claim.lease, completed(turn_id))
            bench.store.release(claim.lease)
            return bench.store.cancel(turn_id)

        self.both(end)

    @rule(turn=turns, operation=OPERATIONS)
    def forget(self, turn: tuple[str, str], operation: str) -> None:
        self.both(lambda bench: bench.store.conversations.forget(*turn, operation))

    @rule(turn=turns, operation=OPERATIONS, take=st.booleans())
    def continue_from(self, turn: tuple[str, str], operation: str, take: bool) -> None:
        self.both(
            lambda bench: bench.store.conversations.continue_from(*turn, operation, take=take)
        )

    @rule(name=NAMES, tenant=TENANTS, operation=OPERATIONS, position=st.integers(0, 9))
    def remove(self, name: str, tenant: str, operation: str, position: int) -> None:
        reading = Reading(first=position, last=position, max_bytes=1)
        found = self.both(lambda bench: bench.store.conversations.page(name, "acme", reading))
        if found is not None and found.messages:
            [message] = found.messages
            self.both(
                lambda bench: bench.store.conversations.remove(name, tenant, message, operation)
            )

    @rule(turn=turns, step_bytes=st.sampled_from([1, 10_000]))
    def fork(self, turn: tuple[str, str], step_bytes: int) -> None:
        name, turn_id = turn
        search = Search(turn_id=turn_id, max_messages=64, max_bytes=10_000)
        found = self.both(lambda bench: bench.store.conversations.seek(name, "acme", search))
        assert not isinstance(found, SearchOn)
        if not isinstance(found, Place) or name != C:
            return
        fork = Fork(
            source=name,
            copy=beside(C),
            tenant_id="acme",
            user_id=None,
            place=found,
            idle_time=0,
            step_bytes=step_bytes,
        )
        self.both(lambda bench: bench.store.conversations.fork(fork, 0))

    @rule(
        target=remains,
        name=NAMES,
        tenant=TENANTS,
        expected=st.none() | st.integers(0, 6),
    )
    def drop(self, name: str, tenant: str, expected: int | None) -> Any:
        operation = self.name()
        dropped = [
            bench.store.conversations.drop(name, tenant, operation, expected=expected)
            for bench in self.benches
        ]
        if isinstance(dropped[0], Dropped):
            assert isinstance(dropped[1], Dropped)
            return tuple(dropped)
        assert dropped[0] == dropped[1]
        return multiple()

    @rule(dropped=consumes(remains))
    def wipe(self, dropped: tuple[Dropped, Dropped]) -> None:
        step = self.name()
        first, second = (
            bench.store.conversations.wipe(each, step)
            for bench, each in zip(self.benches, dropped, strict=True)
        )
        assert _plain(first.turns) == _plain(second.turns)
        assert first.left == second.left == 0

    @invariant()
    def the_same_is_stored(self) -> None:
        if not hasattr(self, "benches"):
            return
        for name in (C, beside(C)):
            self.both(lambda bench: bench.store.history(name))  # noqa: B023
            self.both(lambda bench: bench.store.conversations.find(name, "acme"))  # noqa: B023
            reading = Reading(max_bytes=300, up=False)
            self.both(
                lambda bench: bench.store.conversations.page(name, "acme", reading)  # noqa: B023
            )
            self.both(
                lambda bench: bench.store.conversations.measure(name, "acme", reading)  # noqa: B023
            )


def _plain(answer: Any) -> Any:
    """An answer without times, which are each store's own."""
    match answer:
        case ConversationRecord():
            return replace(answer, created_at=0)
        case ForgottenTurn():
            return replace(answer, accepted_at=0)
        case list():
            return [_plain(each) for each in answer]
        case _:
            return answer


def test_both_stores_answer_alike(redis_url: str) -> None:
    def make() -> tuple[Bench, Bench]:
        return (
            in_memory_twice(Repeats(set()), inbox_limit=3),
            on_redis_twice(redis_url, Repeats(set()), inbox_limit=3),
        )

    machine: Any = type("Compared", (TwoStores,), {"make_benches": staticmethod(make)})
    run_state_machine_as_test(machine, settings=EXAMPLES)
