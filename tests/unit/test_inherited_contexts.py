"""Contexts of child turns, of flows and after handovers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from agentapi import Agent, Delegate, InvalidContext, TurnContext, delegate, handoff, tool
from agentapi.stores.redis.calls_codec import held_to_json
from agentapi.testing import ScriptedProvider, assert_failed, call, calls, says
from agentapi.turns import ChildTurn, HeldCalls
from orchestrator import Orchestrator

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]


class Shopper(BaseModel):
    """A context."""

    name: str
    plan: str = "free"


class Order(BaseModel):
    """Another one."""

    number: int = 0


ANN = Shopper(name="Ann", plan="gold")


def greet(turn: TurnContext[Shopper]) -> str:
    return f"You help {turn.context.name} ({turn.context.plan})."


helper = Agent(
    name="helper",
    provider="openai",
    system_prompt=lambda turn: f"{turn.agent} sees {turn.context} {turn.metadata}",
)
typed = Agent(name="typed", provider="openai", system_prompt=greet, context_type=Shopper)
other = Agent(
    name="other",
    provider="openai",
    system_prompt=lambda turn: f"order {turn.context.number}",
    context_type=Order,
)


@tool
def ask_other(number: int) -> Delegate:
    """Ask with a context of its own."""
    return delegate(other, "go", context=Order(number=number))


@tool
def ask_badly() -> Delegate:
    """Ask with a context that is not valid."""
    return delegate(other, "go", context={"number": "none"})


boss = Agent(
    name="boss",
    tools=[helper.as_tool(), typed.as_tool(), other.as_tool(), ask_other, ask_badly],
    context_type=Shopper,
)

CHILDREN = {
    "helper": "helper sees {'name': 'Ann', 'plan': 'gold'} {}",
    "typed": "You help Ann (gold).",
    "other": "order 0",
    "ask_other": "order 7",
}
"""Prompts of the children of `boss`: untyped, of the same type, of another type with defaults, of
another type with a value."""


def _asking(name: str) -> Any:
    if name == "ask_other":
        return call(name, number=7)
    return call(name, message="go")


@pytest.mark.parametrize("name", CHILDREN)
def test_child_turns_inherit_the_context(
    script: Script, eager_orchestrator: Eager, name: str
) -> None:
    model = script(calls(_asking(name)), says("child"), says("Done."))
    orchestrator = eager_orchestrator([boss])
    orchestrator.enqueue("boss", "Go", context=ANN, metadata={"a": 1}).result()
    assert [request.system_prompt for request in model.requests] == ["", CHILDREN[name], ""]


@pytest.mark.parametrize("name", CHILDREN)
async def test_child_turns_in_process_inherit_it_as_well(script: Script, name: str) -> None:
    model = script(calls(_asking(name)), says("child"), says("Done."))
    boss.reset_memory()
    await boss.run("Go", context=ANN, metadata={"a": 1})
    assert [request.system_prompt for request in model.requests] == ["", CHILDREN[name], ""]


def test_a_child_is_not_started_with_a_context_that_is_not_valid(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(calls(call("ask_badly")), says("Done."))
    turn = eager_orchestrator([boss]).enqueue("boss", "Go", context=ANN)
    assert "the context is not a Order" in turn.result().messages[2].content
    assert turn.children() == []


def test_a_child_without_a_context_stores_nothing_for_it() -> None:
    child = ChildTurn(call_id="c", turn_id="t", conversation_id="c", agent="a", input="x")
    plain = held_to_json(HeldCalls(children=[child]))
    assert b"context" not in plain
    assert b"inherits" not in plain


def test_gather_and_chain_pass_the_context_on(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("one"), says("two"), says("three"))
    orchestrator = eager_orchestrator([helper, typed, other])
    orchestrator.gather([("typed", "a")], context=ANN).result()
    orchestrator.chain([("typed", "a"), "helper"], context=ANN).result()
    assert [request.system_prompt for request in model.requests] == [
        "You help Ann (gold).",
        "You help Ann (gold).",
        "helper sees {'name': 'Ann', 'plan': 'gold'} {}",
    ]
    with pytest.raises(InvalidContext, match="agent 'typed' needs a context"):
        orchestrator.gather([("typed", "a")])
    with pytest.raises(InvalidContext, match="not a Shopper"):
        orchestrator.chain([("helper", "a"), "typed"], context={"plan": "x"})


def test_after_a_handoff_each_agent_sees_the_context_as_its_own_type(
    script: Script, eager_orchestrator: Eager
) -> None:
    model = script(
        calls(call("transfer_to_typed")),
        calls(call("transfer_to_front")),
        says("Back."),
    )
    made: list[str] = []

    def front_prompt(turn: TurnContext[dict[str, str]]) -> str:
        made.append(turn.agent)
        return f"front {turn.context['plan']}"

    target = Agent(
        name="typed",
        system_prompt=greet,
        context_type=Shopper,
        tools=lambda turn: [handoff("front")],
    )
    front = Agent(name="front", system_prompt=front_prompt, tools=[handoff(target)])
    orchestrator = eager_orchestrator([front, target])
    assert orchestrator.enqueue("front", "Go", context=ANN).result().agent == "front"
    assert [request.system_prompt for request in model.requests] == [
        "front gold",
        "You help Ann (gold).",
        "front gold",
    ]
    assert made == ["front"]


def test_a_handoff_to_an_agent_that_wants_another_context_ends_the_turn(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(calls(call("transfer_to_typed")), says("never"))
    front = Agent(name="front", tools=[handoff(typed)])
    turn = eager_orchestrator([front]).enqueue("front", "Go", context={"other": 1})
    assert_failed(turn, "invalid_context")


async def test_in_process_tools_of_a_turn_may_hand_over(script: Script) -> None:
    model = script(calls(call("transfer_to_typed")), says("One."), says("Two."))
    front = Agent(name="front", tools=lambda turn: [handoff(typed)])
    assert (await front.run_turn("Go", context=ANN)).agent == "typed"
    assert (await front.run_turn("Go", context={"name": "Bob"})).agent == "typed"
    assert [request.system_prompt for request in model.requests] == [
        "",
        "You help Ann (gold).",
        "You help Bob (free).",
    ]
