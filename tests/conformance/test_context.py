"""What stores keep of a turn's context and of what its functions returned."""

from __future__ import annotations

from dataclasses import replace

import orjson

from agentapi.stores import Ending, Suspended
from agentapi.stores.redis.codec import spec_to_fields
from agentapi.turns import ChildTurn, HeldCalls, NewTurn, Step, TurnStatus, step_to_json
from tests.conformance.stores import Bench, C, model_step, tool_step

CONTEXT = {"name": "Ann", "tags": ["a"]}


def test_a_turn_keeps_its_context_over_claims_and_retries(bench: Bench) -> None:
    turn_id = bench.enqueue(context=CONTEXT)
    claim = bench.claim(turn_id)
    assert claim.turn.context == CONTEXT
    bench.store.release(claim.lease)
    again = bench.claim(turn_id)
    assert again.turn.context == CONTEXT
    bench.store.commit(again.lease, Ending(status=TurnStatus.FAILED))
    bench.store.retry(turn_id, "again")
    assert bench.claim(turn_id).turn.context == CONTEXT


def test_an_empty_context_is_not_none(bench: Bench) -> None:
    assert bench.claim(bench.enqueue(context={})).turn.context == {}
    assert bench.claim(bench.enqueue("other"), "other").turn.context is None


def test_the_journal_keeps_what_functions_returned(bench: Bench) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    steps: list[Step] = [
        replace(model_step("c1"), prompt="You help Ann.", offered=("look", "files/*")),
        tool_step("c1"),
        replace(model_step("c2"), prompt="", offered=()),
    ]
    for index, step in enumerate(steps):
        for _ in range(2):
            bench.store.record(lease, index, step)
    bench.expire_lease(C)
    assert list(bench.claim(turn_id).steps) == steps
    events = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert not any("Ann" in str(event.data) for event in events)


def test_children_keep_a_context_of_their_own(bench: Bench) -> None:
    turn_id = bench.enqueue(context=CONTEXT)
    lease = bench.claim(turn_id).lease
    children = [
        ChildTurn(
            call_id="c1",
            turn_id=f"000-{number:032}",
            conversation_id=f"child:{number}",
            agent="b",
            input="hi",
            **more,  # type: ignore[arg-type]
        )
        for number, more in enumerate(
            [{}, {"context": {"number": 7}}, {"inherits": False}, {"context": {}}]
        )
    ]
    assert bench.store.calls.suspend(lease, HeldCalls(children=children)) is Suspended.PARKED
    assert [child for child, _ in bench.store.calls.children(turn_id)] == children
    contexts = [child.context_of(CONTEXT) for child in children]
    assert contexts == [CONTEXT, {"number": 7}, None, {}]


def test_what_is_not_used_is_not_stored() -> None:
    new = NewTurn(turn_id="000-1", conversation_id=C, agent="a", input="hi")
    assert "context" not in spec_to_fields(new)
    assert set(orjson.loads(step_to_json(model_step()))) == {"v", "kind", "message", "usage"}
