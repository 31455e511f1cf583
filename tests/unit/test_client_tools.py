"""Client tools in the agent loop: what the model is offered, and how turns with them end."""

from __future__ import annotations

from typing import Any

import pytest

from agentapi import Agent, ClientTool, ClientToolRefused, TurnStatus, tool
from agentapi.conversation.messages import ToolCall
from agentapi.engine.client_calls import is_last_word
from agentapi.providers import ModelRequest, ToolSpec, ToolUse
from agentapi.providers.gemini.format import tool_config
from agentapi.providers.openai.format import request_body
from agentapi.testing import ScriptedProvider, call, calls, says, scripted
from agentapi.turns import CallBook, ClientOutput, ClientTools, LastWord, ToolChoice
from agentapi.turns.client_tool_input import MAX_CLIENT_TOOLS, client_tools_of
from agentapi.turns.client_tools import NOT_IN_TIME
from orchestrator import Orchestrator, TurnHandle


@tool
def own(x: int) -> str:
    """Own."""
    return f"own {x}"


AGENT = Agent(name="a", provider="openai", tools=[own])
PAINT = ClientTool(name="paint", parameters={"type": "object"})
BURN = ClientTool(name="burn", parameters={"type": "object"})


def ask(orchestrator: Orchestrator, **options: Any) -> TurnHandle:
    return orchestrator.enqueue("a", "hi", client_tools=ClientTools(tools=[PAINT, BURN], **options))


def offered(script: ScriptedProvider, number: int) -> tuple[list[str], ToolUse | None]:
    request = script.requests[number]
    return [spec.name for spec in request.tools], request.tool_use


def test_a_choice_counts_until_the_model_has_called() -> None:
    asked = calls(call("own", "c1", x=1)), calls(call("paint", "c2")), says("done")
    with Orchestrator.eager([AGENT]) as orchestrator, scripted(*asked) as script:
        turn = ask(orchestrator, choice=ToolChoice.REQUIRED, only=["paint"])
        turn.answer("c2", "painted")
        assert turn.result(5).text == "done"
    forced = ToolUse(required=True, name="paint")
    assert offered(script, 0) == (["own", "paint"], forced)
    assert offered(script, 1) == (["own", "paint"], forced)
    assert offered(script, 2) == (["own", "paint", "burn"], None)


def test_none_leaves_the_own_tools() -> None:
    with Orchestrator.eager([AGENT]) as orchestrator, scripted(says("done")) as script:
        assert ask(orchestrator, choice=ToolChoice.NONE).result(5).text == "done"
    assert offered(script, 0) == (["own"], None)


def test_one_call_at_a_time_also_with_providers_that_do_not_know_that() -> None:
    asked = calls(call("paint", "c1"), call("burn", "c2")), says("done")
    with Orchestrator.eager([AGENT]) as orchestrator, scripted(*asked) as script:
        turn = ask(orchestrator, parallel=False)
        assert [c.call_id for c in turn.pending()] == ["c1"]
        turn.answer("c1", "painted", is_error=True)
        result = turn.result(5)
    assert offered(script, 0)[1] == ToolUse(parallel=False)
    [told] = [m for m in result.messages if m.role == "tool"]
    assert (told.content, told.is_error) == ("painted", True)


def test_a_turn_may_end_with_its_calls() -> None:
    asked = calls(call("own", "c1", x=1), call("paint", "c2"), text="look")
    with Orchestrator.eager([AGENT]) as orchestrator, scripted(asked):
        turn = ask(orchestrator, last_word=LastWord.ALWAYS)
        info = turn.info()
    assert info.status is TurnStatus.COMPLETED
    results = {m.call_id: m.content for m in info.messages if m.role == "tool"}
    assert results["c1"] == "own 1"
    assert "continued without answering" in results["c2"]


def test_a_turn_ends_with_its_calls_when_nobody_answers() -> None:
    late = ClientTools(tools=[PAINT], last_word=LastWord.WHEN_LATE)
    asked = [ToolCall(id="c", name="paint", arguments={}, client=True)]
    silent = CallBook(outputs={"c": NOT_IN_TIME})
    assert is_last_word(late, asked, silent)
    assert not is_last_word(late, asked, CallBook())
    assert not is_last_word(late, asked, CallBook(outputs={"c": ClientOutput(text="done")}))
    assert not is_last_word(ClientTools(tools=[PAINT]), asked, silent)
    # A call of the agent's own is made first.
    assert not is_last_word(late, [*asked, ToolCall(id="d", name="own", arguments={})], silent)


def test_names_of_the_agents_own_tools_are_taken() -> None:
    with Orchestrator.eager([AGENT]) as orchestrator, pytest.raises(ClientToolRefused, match="own"):
        orchestrator.enqueue("a", "hi", client_tools=[{"name": "own"}])


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([{"name": "no spaces"}], "64 letters"),
        ([{"name": "a"}, {"name": "a"}], "two client tools"),
        ([{"name": "a", "parameters": {"type": "string"}}], "expected 'object'"),
        ([{"name": "a", "parameters": []}], "JSON schema"),
        ([{"name": "a", "colour": 1}], "not valid"),
        ([{"name": f"t{n}"} for n in range(MAX_CLIENT_TOOLS + 1)], "the limit is"),
        ([{"name": "a", "description": "x" * 200_000}], "bytes as JSON"),
        (ClientTools(tools=[PAINT], only=["burn"]), "not among"),
        (ClientTools(tools=[PAINT], timeout=0), "above 0"),
    ],
)
def test_what_is_refused(tools: Any, why: str) -> None:
    with pytest.raises(ClientToolRefused, match=why):
        client_tools_of(tools)


def test_what_providers_are_sent() -> None:
    def body(use: ToolUse | None) -> dict[str, Any]:
        tools = [ToolSpec(name="paint", description="", parameters={}, strict=True)]
        request = ModelRequest(model="m", system_prompt="", messages=[], tools=tools, tool_use=use)
        return request_body(request)

    assert "tool_choice" not in body(None)
    assert body(None)["tools"][0]["function"]["strict"] is True
    assert body(ToolUse(required=True, parallel=False)) == {
        **body(None),
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    named = {"type": "function", "function": {"name": "paint"}}
    assert body(ToolUse(required=True, name="paint"))["tool_choice"] == named
    assert tool_config(ToolUse(parallel=False)) is None
    assert tool_config(ToolUse(required=True, name="paint")) == {
        "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["paint"]}
    }
