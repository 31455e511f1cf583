"""Hooks that look, redact and refuse; limits on what turns and conversations spend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agentapi import Agent, delegate, tool
from agentapi.agents.hooks import Hooks, Proceed
from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.errors import AgentAPIError, InvalidAgent, TurnFailed, TurnVetoed
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.tools import Delegate, Delegation, ToolContext
from agentapi.turns import TurnResult, TurnStatus
from agentapi.turns.budget import Limits, Price, Spent, priced
from orchestrator import Orchestrator

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]


@tool
def look(what: str) -> str:
    """Look."""
    return f"saw {what}"


class Diary(Hooks):
    """Writes down what it is shown."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    def on_turn_start(self, context: ToolContext, message: str) -> None:
        assert threading.current_thread().name.startswith("agentapi-tool")
        self.lines.append(f"{self.name} start {message}")

    async def on_step(self, context: ToolContext, response: AssistantMessage) -> None:
        self.lines.append(f"{self.name} step {response.content or 'calls'}")

    async def on_tool(
        self, context: ToolContext, call: ToolCall, proceed: Proceed
    ) -> str | Delegation:
        self.lines.append(f"{self.name} before {call.name}")
        result = await proceed(call)
        self.lines.append(f"{self.name} after {result}")
        return result

    def on_turn_end(self, context: ToolContext, result: TurnResult | AgentAPIError) -> None:
        ended = result.text if isinstance(result, TurnResult) else result.code
        self.lines.append(f"{self.name} end {ended}")


def test_all_that_happens_is_shown_in_order(script: Script, eager_orchestrator: Eager) -> None:
    script(calls(call("look", what="up")), says("Done."))
    lines: list[str] = []
    agent = Agent(provider="openai", tools=[look], hooks=[Diary("a", lines), Diary("b", lines)])
    eager_orchestrator([agent]).enqueue("agent", "Go").result()
    assert lines == [
        "a start Go",
        "b start Go",
        "a step calls",
        "b step calls",
        "a before look",
        "b before look",
        "b after saw up",
        "a after saw up",
        "a step Done.",
        "b step Done.",
        "a end Done.",
        "b end Done.",
    ]


def test_a_turn_that_fails_is_shown_as_well(script: Script, eager_orchestrator: Eager) -> None:
    script(*[calls(call("look", what="up"))] * 2)
    lines: list[str] = []
    agent = Agent(provider="openai", tools=[look], max_steps=1, hooks=[Diary("a", lines)])
    assert eager_orchestrator([agent]).enqueue("agent", "Go").status() is TurnStatus.FAILED
    assert lines[-1] == "a end max_steps"


class Censor(Hooks):
    """Redacts a word everywhere."""

    def on_turn_start(self, context: ToolContext, message: str) -> str:
        return message.replace("secret", "***")

    def on_step(self, context: ToolContext, response: AssistantMessage) -> AssistantMessage:
        return replace(response, content=response.content.replace("secret", "***"))

    async def on_tool(
        self, context: ToolContext, call: ToolCall, proceed: Proceed
    ) -> str | Delegation:
        return str(await proceed(call)).replace("secret", "***")


def test_what_is_redacted_is_nowhere(script: Script, eager_orchestrator: Eager) -> None:
    model = script(calls(call("look", what="secret"), text="a secret"), says("The secret."))
    agent = Agent(provider="openai", tools=[look], hooks=[Censor()])
    orchestrator = eager_orchestrator([agent])
    turn = orchestrator.enqueue("agent", "My secret", conversation_id="c")
    assert turn.result().text == "The ***."
    said = [message["content"] for message in orchestrator.history("c")]
    assert said == ["My ***", "a ***", "saw ***", "The ***."]
    assert "secret" not in str([m.content for r in model.requests for m in r.messages])


class Sign(Hooks):
    """Adds to the message, so that a second time would show."""

    def on_turn_start(self, context: ToolContext, message: str) -> str:
        return f"{message}!"


async def test_an_attempt_starts_once_however_often_it_waits(script: Script) -> None:
    model = script(
        *(calls(call("scholar", message="Why?"), call("look", what="up")), says("Because."))
    )
    scholar = Agent(name="scholar", provider="offline")
    agent = Agent(provider="openai", tools=[look, scholar.as_tool()], hooks=[Sign()])
    await agent.run("Go")
    assert model.requests[-1].messages[0].content == "Go!"


class Guard(Hooks):
    """Refuses."""

    def on_turn_start(self, context: ToolContext, message: str) -> None:
        if "bomb" in message:
            raise TurnVetoed("no bombs")

    async def on_tool(
        self, context: ToolContext, call: ToolCall, proceed: Proceed
    ) -> str | Delegation:
        if call.arguments["what"] == "down":
            return "you may not look there"
        if call.arguments["what"] == "away":
            raise TurnVetoed("do not look away")
        return await proceed(call)


def test_a_hook_refuses(script: Script, eager_orchestrator: Eager) -> None:
    agent = Agent(provider="openai", tools=[look], hooks=[Guard()])
    orchestrator = eager_orchestrator([agent])
    with pytest.raises(TurnFailed, match=r"vetoed.*no bombs"):
        orchestrator.enqueue("agent", "A bomb").result()
    script(calls(call("look", what="down")), says("Sorry."))
    turn = orchestrator.enqueue("agent", "Look")
    assert turn.result().messages[2].content == "you may not look there"
    script(calls(call("look", what="away"), call("look", "c2", what="up")))
    with pytest.raises(TurnFailed, match=r"vetoed.*do not look away"):
        orchestrator.enqueue("agent", "Look").result()


class Faulty(Hooks):
    def on_step(self, context: ToolContext, response: AssistantMessage) -> Any:
        return 1 / 0 if response.content == "one" else "no message"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("one", "hook_failed.*Faulty.on_step raised ZeroDivisionError"),
        ("two", "hook_failed.*Faulty.on_step returned a str, expected AssistantMessage"),
    ],
)
def test_a_hook_with_a_fault(
    script: Script, eager_orchestrator: Eager, reply: str, said: str
) -> None:
    script(says(reply))
    agent = Agent(provider="openai", hooks=[Faulty()])
    with pytest.raises(TurnFailed, match=said):
        eager_orchestrator([agent]).enqueue("agent", "Go").result()


def spender(**more: Any) -> Agent:
    return Agent(name="spender", provider="openai", tools=[look], **more)


LOOK = calls(call("look", what="up"))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(steps=2), "spent 2 of 2 steps"),
        (Limits(tokens=20), "spent 30 of 20 tokens"),
        (Limits(cost=0.0001), r"spent 0.0002 of 0.0001 cost"),
    ],
)
def test_a_turn_that_spends_too_much(
    script: Script, eager_orchestrator: Eager, limits: Limits, said: str
) -> None:
    model = script(LOOK, LOOK, says("Done."))
    prices = {"script-1": {"input": 10, "output": 20}}
    orchestrator = eager_orchestrator([spender(limits=limits)], prices=prices)
    with pytest.raises(TurnFailed, match=rf"budget_exceeded.*the turn has {said}"):
        orchestrator.enqueue("spender", "Go").result()
    assert len(model.requests) <= 2


def test_a_conversation_that_spends_too_much(script: Script, eager_orchestrator: Eager) -> None:
    script(says("one"), says("two"), says("three"))
    agent = spender(conversation_limits=Limits(tokens=20))
    orchestrator = eager_orchestrator([agent])
    for _ in range(2):
        assert orchestrator.enqueue("spender", "Go", conversation_id="c").result()
    with pytest.raises(TurnFailed, match="the conversation has spent 24 of 20 tokens"):
        orchestrator.enqueue("spender", "Go", conversation_id="c").result()
    assert orchestrator.enqueue("spender", "Go", conversation_id="other").result()


async def test_limits_without_workers(script: Script) -> None:
    script(says("one"), says("two"), LOOK)
    agent = spender(conversation_limits=Limits(tokens=12))
    await agent.run("Go")
    with pytest.raises(AgentAPIError, match="conversation has spent 12 of 12 tokens"):
        await agent.run("Go")
    agent.reset_memory()
    assert await agent.run("Go") == "two"
    with pytest.raises(AgentAPIError, match="turn has spent 2 of 2 steps"):
        await spender(limits=Limits(steps=2)).run("Go")


def test_children_share_what_is_left(script: Script, eager_orchestrator: Eager) -> None:
    @tool
    def ask(names: list[str]) -> list[Delegate]:
        """Ask."""
        return [delegate("spender", name) for name in names]

    script(calls(call("ask", names=["a", "b"])), says("Done."), provider="leads")
    # The first has 42 tokens of the 100 that are left over: not enough for four calls of 15.
    script(*[LOOK] * 3, says("one"), says("two"))
    lead = Agent(name="lead", provider="leads", tools=[ask], limits=Limits(tokens=100))
    turn = eager_orchestrator([lead, spender()]).enqueue("lead", "Go")
    result = turn.result()
    told = result.messages[2].content
    assert "the turn has spent 45 of 42 tokens" in told
    assert result.usage.total_tokens == 15 + 45 + 12 + 12


def test_prices() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=400)
    table = {"openai:gpt": Price(input=1, output=10, cached=0.1), "mini": Price(input=1, output=1)}
    assert priced(usage, "openai:gpt", table).cost == pytest.approx(0.00164)
    assert priced(usage, "any:mini", table).cost == pytest.approx(0.0011)
    assert priced(usage, "unknown", table) == priced(usage, None, table) == usage
    assert Limits(tokens=10).tighter(Limits(tokens=5, steps=3)) == Limits(tokens=5, steps=3)
    assert Limits().share(Spent(), 2) is None
    assert Limits(steps=3).share(Spent(steps=5), 2) == Limits(steps=0)
    with pytest.raises(InvalidAgent, match="tokens is -1"):
        Limits(tokens=-1)
