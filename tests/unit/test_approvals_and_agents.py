"""Approvals, agents that ask agents, handoffs: the loop, in eager mode and in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentapi import (
    Agent,
    AssistantMessage,
    ToolContext,
    Usage,
    Verdict,
    delegate,
    handoff,
    tool,
)
from agentapi.errors import ApprovalRequired, CallNotPending, InvalidInput, InvalidTool, TurnFailed
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.tools import Delegate
from agentapi.turns import TurnStatus
from orchestrator import Orchestrator
from orchestrator.arguments import check_arguments
from orchestrator.turn_request import MAX_ARGUMENTS_BYTES

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]

made: list[str] = []


@tool(requires_approval=True)
def refund(order: str) -> str:
    """Pay back."""
    made.append(order)
    return f"paid {order}"


@tool(requires_approval=lambda amount: amount > 100)
def pay(amount: int, to: str) -> str:
    """Pay."""
    made.append(f"{to}:{amount}")
    return "paid"


def undecided(amount: int) -> bool:
    raise RuntimeError("a predicate with a fault")


@tool(requires_approval=undecided)
def risky(amount: int) -> str:
    """Take a risk."""
    return "taken"


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    made.clear()


def desk(**more: Any) -> Agent:
    return Agent(name="desk", provider="openai", tools=[refund, pay, risky], **more)


def test_a_call_waits_for_its_approval(script: Script, eager_orchestrator: Eager) -> None:
    model = script(calls(call("refund", "c1", order="7")), says("Done."))
    turn = eager_orchestrator([desk()]).enqueue("desk", "Refund 7", conversation_id="c")
    assert turn.status() is TurnStatus.PARKED
    assert made == []
    [pending] = turn.pending()
    assert (pending.call_id, pending.tool, pending.arguments) == ("c1", "refund", {"order": "7"})
    turn.approve("c1", by="ann")
    assert turn.result().text == "Done."
    assert made == ["7"]
    assert turn.pending() == []
    assert model.requests[1].messages[-1].content == "paid 7"
    with pytest.raises(CallNotPending):
        turn.reject("c1")


def test_a_call_that_is_rejected_is_not_made(script: Script, eager_orchestrator: Eager) -> None:
    model = script(calls(call("refund", "c1", order="7")), says("Sorry."))
    turn = eager_orchestrator([desk()]).enqueue("desk", "Refund 7")
    turn.reject("c1", "ask for the receipt first")
    assert turn.result().text == "Sorry."
    assert made == []
    told = model.requests[1].messages[-1]
    assert "not allowed: ask for the receipt first" in told.content


def test_arguments_can_be_edited_before_the_approval(
    script: Script, eager_orchestrator: Eager
) -> None:
    model = script(calls(call("pay", "c1", amount=500, to="bob")), says("Done."))
    turn = eager_orchestrator([desk()]).enqueue("desk", "Pay Bob")
    for wrong in ({"amount": "much", "to": "bob"}, {"amount": 5}):
        with pytest.raises(InvalidInput, match="do not match the schema of tool 'pay'"):
            turn.approve("c1", arguments=wrong)
    assert [pending.call_id for pending in turn.pending()] == ["c1"]
    turn.approve("c1", by="ann", arguments={"amount": 5, "to": "bob"})
    result = turn.result()
    assert made == ["bob:5"]
    asked, told = result.messages[1], result.messages[2]
    assert isinstance(asked, AssistantMessage)
    # What the model wrote stays in the history; the result says what was done instead.
    assert asked.tool_calls[0].arguments == {"amount": 500, "to": "bob"}
    assert told.content.startswith("A person changed the arguments of this call")
    assert '{"amount":5,"to":"bob"}' in told.content
    assert told.content.endswith("The result of that call:\npaid")
    assert model.requests[1].messages[-1].content == told.content
    with pytest.raises(CallNotPending):
        turn.approve("c1", arguments={"amount": 6, "to": "bob"})


def test_arguments_that_no_json_object_holds_decide_nothing(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(calls(call("refund", "c1", order="1")), says("Done."))
    turn = eager_orchestrator([desk()]).enqueue("desk", "Go")
    for wrong in ({"order": object()}, ["order"], {"order": "x" * MAX_ARGUMENTS_BYTES}):
        with pytest.raises(InvalidInput, match=r"arguments .* expected a JSON object"):
            turn.approve("c1", arguments=wrong)  # type: ignore[arg-type]
    assert turn.pending()


def test_faults_of_arguments_do_not_quote_them() -> None:
    schema = {
        "type": "object",
        "properties": {"to": {"type": "object", "properties": {"zip": {"type": "integer"}}}},
        "required": ["amount"],
    }
    with pytest.raises(InvalidInput) as error:
        check_arguments("pay", schema, {"to": {"zip": "secret"}})
    assert str(error.value) == (
        "the arguments do not match the schema of tool 'pay': "
        'arguments: "amount" is a required property; to.zip: the value is not of type "integer"'
    )
    # The tool itself decides where its schema cannot be used.
    check_arguments("pay", {"type": "nonsense"}, {})
    check_arguments("pay", {"$ref": "https://example.com/other.json"}, {})


def test_calls_are_decided_one_by_one(script: Script, eager_orchestrator: Eager) -> None:
    script(
        calls(call("refund", "c1", order="1"), call("refund", "c2", order="2"), call("pay", "c3",
              amount=5, to="bob")),
        says("Done."),
    )  # fmt: skip
    turn = eager_orchestrator([desk()]).enqueue("desk", "Go")
    # What needs no approval is made at once.
    assert made == ["bob:5"]
    turn.approve("c2")
    assert made == ["bob:5", "2"]
    assert turn.status() is TurnStatus.PARKED
    assert [pending.call_id for pending in turn.pending()] == ["c1"]
    turn.reject("c1")
    result = turn.result()
    assert made == ["bob:5", "2"]
    told = [message.content for message in result.messages[2:5]]
    assert told == ["This call was not allowed", "paid 2", "paid"]


def test_a_predicate_says_which_calls_need_approval(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(
        calls(
            call("pay", "c1", amount=5, to="a"),
            call("pay", "c2", amount=500, to="b"),
            call("pay", "c3", amount="no number", to="c"),
            call("risky", "c4", amount=1),
        ),
        says("Done."),
    )
    turn = eager_orchestrator([desk()]).enqueue("desk", "Go")
    assert [pending.call_id for pending in turn.pending()] == ["c2", "c4"]
    turn.approve("c4")
    turn.approve("c2")
    result = turn.result()
    assert made == ["a:5", "b:500"]
    assert "invalid arguments" in result.messages[4].content
    assert result.messages[5].content == "taken"


def test_without_an_orchestrator_nobody_can_be_asked(script: Script) -> None:
    script(calls(call("refund", "c1", order="7")))
    with pytest.raises(ApprovalRequired, match=r"refund requires approval.*Orchestrator"):
        asyncio.run(desk().run("Refund 7"))
    assert made == []


@pytest.mark.parametrize("wrong", [{"approval_timeout": 0}, {"approval_default": "maybe"}], ids=str)
def test_what_is_no_approval(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTool, match="expected"):
        tool(requires_approval=True, **wrong)(lambda: "x")


def scholar(**more: Any) -> Agent:
    return Agent(name="scholar", provider="scholars", **more)


@tool
def survey(topics: list[str], context: ToolContext) -> list[Delegate]:
    """Ask about each."""
    return [delegate("scholar", f"About {topic}?") for topic in topics]


def test_an_agent_asks_another(script: Script, eager_orchestrator: Eager) -> None:
    learned = script(says("42"), provider="scholars")
    model = script(calls(call("scholar", "c1", message="What is it?")), says("It is 42."))
    lead = Agent(name="lead", provider="openai", tools=[scholar().as_tool()])
    orchestrator = eager_orchestrator([lead])
    turn = orchestrator.enqueue("lead", "Find out", tenant_id="acme", user_id="ann")
    result = turn.result()
    assert result.text == "It is 42."
    assert model.requests[1].messages[-1].content == "42"
    # What the child spent is counted in its parent.
    assert result.usage == Usage(input_tokens=30, output_tokens=9)
    [asked] = learned.requests
    assert [message.content for message in asked.messages] == ["What is it?"]
    kinds = [event.type.value for event in turn.events()]
    assert kinds == ["started", "step", "parked", "replied", "started", "step", "completed"]


def test_replies_come_in_the_order_of_the_questions(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(says("one"), says("two"), says("three"), provider="scholars")
    model = script(
        calls(call("survey", "c1", topics=["a", "b"]), call("survey", "c2", topics=["c"])),
        says("Done."),
    )
    lead = Agent(name="lead", provider="openai", tools=[survey])
    orchestrator = eager_orchestrator([lead, scholar()])
    orchestrator.enqueue("lead", "Find out").result()
    told = [json.loads(message.content) for message in model.requests[1].messages[-2:]]
    assert told == [["one", "two"], ["three"]]


def test_a_child_that_fails_is_told_of(script: Script, eager_orchestrator: Eager) -> None:
    model = script(calls(call("survey", "c1", topics=["a"])), says("So be it."))
    lead = Agent(name="lead", provider="openai", tools=[survey])
    assert eager_orchestrator([lead]).enqueue("lead", "Go").result().text == "So be it."
    [reply] = json.loads(model.requests[1].messages[-1].content)
    assert "unknown_agent" in reply["error"]


def test_an_agent_that_remembers(script: Script, eager_orchestrator: Eager) -> None:
    learned = script(says("one"), says("two"), provider="scholars")
    ask = calls(call("scholar", "c1", message="And?"))
    script(ask, says("1"), ask, says("2"))
    lead = Agent(name="lead", provider="openai", tools=[scholar().as_tool(remembers=True)])
    orchestrator = eager_orchestrator([lead])
    for _ in range(2):
        orchestrator.enqueue("lead", "Go", conversation_id="c").result()
    assert [m.content for m in learned.requests[1].messages] == ["And?", "one", "And?"]
    assert len(orchestrator.history("c/scholar")) == 4


def test_depth_and_width_are_limited(script: Script, eager_orchestrator: Eager) -> None:
    script(provider="scholars")
    model = script(calls(call("survey", "c1", topics=["a", "b", "c"])), says("Done."))
    lead = Agent(name="lead", provider="openai", tools=[survey])
    eager_orchestrator([lead, scholar()], max_children=2).enqueue("lead", "Go").result()
    assert "AGENTAPI_MAX_CHILDREN" in model.requests[1].messages[-1].content
    model = script(calls(call("survey", "c1", topics=["a"])), says("Done."))
    eager_orchestrator([lead, scholar()], max_depth=0).enqueue("lead", "Go").result()
    assert "AGENTAPI_MAX_DEPTH" in model.requests[1].messages[-1].content


def test_an_approval_below_is_answered_from_above(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(calls(call("desk", "c1", message="Refund 7")), says("It is done."), provider="leads")
    script(calls(call("refund", "r1", order="7")), says("Refunded."))
    lead = Agent(name="lead", provider="leads", tools=[desk().as_tool()])
    orchestrator = eager_orchestrator([lead])
    turn = orchestrator.enqueue("lead", "Refund 7")
    [pending] = turn.pending()
    assert pending.agent == "desk"
    assert pending.turn_id == turn.children()[0].turn_id
    turn.approve("r1")
    assert turn.result().text == "It is done."
    assert made == ["7"]


def test_a_cancelled_turn_cancels_what_it_waits_for(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(calls(call("desk", "c1", message="Refund 7")), provider="leads")
    script(calls(call("refund", "r1", order="7")))
    lead = Agent(name="lead", provider="leads", tools=[desk().as_tool()])
    orchestrator = eager_orchestrator([lead])
    turn = orchestrator.enqueue("lead", "Refund 7")
    [child] = turn.children()
    turn.cancel()
    assert child.status() is TurnStatus.CANCELLED
    with pytest.raises(CallNotPending):
        child.approve("r1")


def test_an_agent_asked_needs_approval_itself(script: Script, eager_orchestrator: Eager) -> None:
    script(says("42"), provider="scholars")
    script(calls(call("scholar", "c1", message="?")), says("Done."))
    lead = Agent(name="lead", provider="openai", tools=[scholar().as_tool(requires_approval=True)])
    turn = eager_orchestrator([lead]).enqueue("lead", "Go")
    assert turn.children() == []
    turn.approve("c1")
    assert turn.result().text == "Done."


def test_the_conversation_goes_on_with_another_agent(
    script: Script, eager_orchestrator: Eager
) -> None:
    first = script(calls(call("transfer_to_billing", "c1")))
    second = script(says("Billing here."), says("Still here."), provider="bills")
    billing = Agent(name="billing", system_prompt="Bills.", provider="bills")
    front = Agent(name="front", provider="openai", tools=[handoff(billing)])
    orchestrator = eager_orchestrator([front])
    result = orchestrator.enqueue("front", "My bill?", conversation_id="c").result()
    assert (result.text, result.agent) == ("Billing here.", "billing")
    assert len(first.requests) == 1
    assert second.requests[0].system_prompt == "Bills."
    # It sees what was said before, and answers the next turn as well.
    assert second.requests[0].messages[0].content == "My bill?"
    result = orchestrator.enqueue("front", "And?", conversation_id="c").result()
    assert (result.text, result.agent) == ("Still here.", "billing")
    assert len(second.requests[1].messages) == 5


def test_only_one_handoff_counts(script: Script, eager_orchestrator: Eager) -> None:
    script(calls(call("transfer_to_x", "c1"), call("transfer_to_y", "c2")))
    script(says("x"), provider="xs")
    x, y = Agent(name="x", provider="xs"), Agent(name="y", provider="xs")
    front = Agent(name="front", provider="openai", tools=[handoff(x), handoff(y)])
    assert eager_orchestrator([front]).enqueue("front", "Go").result().agent == "x"


def test_a_handoff_to_nobody(script: Script, eager_orchestrator: Eager) -> None:
    script(calls(call("transfer_to_ghost", "c1")))
    front = Agent(name="front", provider="openai", tools=[handoff("ghost")])
    with pytest.raises(TurnFailed, match=r"ghost.*AGENTAPI_AGENTS"):
        eager_orchestrator([front]).enqueue("front", "Go").result()


async def test_all_of_it_in_process(script: Script) -> None:
    script(says("one"), says("two"), says("three"), provider="scholars")
    script(says("Bye."), says("Still."), provider="bills")
    ask = call("scholar", "c2", message="And?")
    script(calls(call("survey", "c1"), ask), calls(call("transfer_to_billing")))
    billing = Agent(name="billing", provider="bills")

    @tool
    def survey() -> list[Delegate]:
        """Ask about it."""
        return [delegate(learned, "a?")]

    learned = scholar()
    tools = [survey, learned.as_tool(remembers=True), handoff(billing)]
    agent = Agent(name="lead", provider="openai", tools=tools)
    result = await agent.run_turn("Go")
    assert (result.text, result.agent) == ("Bye.", "billing")
    told = [m.content for m in result.messages if m.role == "tool"]
    assert sorted(told[:2]) == sorted(['["one"]', "two"]) or told[:2] == ['["two"]', "one"]
    assert await agent.run("And?") == "Still."


def test_the_default_of_an_expired_question() -> None:
    assert refund.approval_default is Verdict.REJECTED


def test_calls_beside_a_handoff_are_those_of_the_first_agent(
    script: Script, eager_orchestrator: Eager
) -> None:
    model = script(calls(call("transfer_to_billing", "c1"), call("refund", "c2", order="7")))
    billed = script(says("Billing here."), provider="bills")
    billing = Agent(name="billing", provider="bills")
    front = Agent(name="front", provider="openai", tools=[refund, handoff(billing)])
    turn = eager_orchestrator([front]).enqueue("front", "Refund 7 and my bill")
    assert turn.status() is TurnStatus.PARKED
    turn.approve("c2")
    assert turn.result().agent == "billing"
    assert made == ["7"]
    assert len(model.requests) == 1
    assert billed.requests[0].messages[-1].content == "paid 7"


async def test_handoffs_over_several_agents_in_process(script: Script) -> None:
    script(says("Learned."), provider="scholars")
    script(calls(call("transfer_to_second")), provider="firsts")
    script(
        calls(call("scholar", "c2", message="?"), call("transfer_to_third", "c3")),
        provider="seconds",
    )
    script(says("Third here."), provider="thirds")
    third = Agent(name="third", provider="thirds")
    second = Agent(name="second", provider="seconds", tools=[scholar().as_tool(), handoff(third)])
    first = Agent(name="first", provider="firsts", tools=[handoff(second)])
    result = await first.run_turn("Go")
    assert (result.text, result.agent) == ("Third here.", "third")
    assert [m.content for m in result.messages if m.role == "tool"][1] == "Learned."
