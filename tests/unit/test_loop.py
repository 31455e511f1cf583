"""The agent loop, with a scripted model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentapi import Agent, ToolContext, tool
from agentapi.admission import local_gate
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.model_chain import chain_of
from agentapi.engine.patience import RetryPolicy, retry_delay
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import UNKNOWN_OUTCOME
from agentapi.errors import LeaseLost, MaxStepsExceeded, ProviderRejected, ProviderUnavailable
from agentapi.providers import Provider
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.turns import ModelStep, Step, ToolStep, TurnResult, UserStep

CONTEXT = ToolContext(conversation_id="c", turn_id="t")


@dataclass
class Log:
    """Remembers; may lose its lease at a step."""

    steps: list[Step] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    lost_at: int | None = None
    waiting: list[UserStep] = field(default_factory=list)

    async def record(self, step: Step, steps: list[Step]) -> None:
        if len(self.steps) == self.lost_at:
            raise LeaseLost("gone")
        self.steps.append(step)
        steps.append(step)

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        self.shown.append(text)

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        self.shown.append(f"{index}:{tool}:{arguments}")

    async def reset(self) -> None:
        self.shown.append("<reset>")

    async def joined(self, steps: list[Step]) -> None:
        joined, self.waiting = self.waiting, []
        self.steps += joined
        steps += joined


finished: list[str] = []


@tool
async def wait(seconds: float, name: str) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    finished.append(name)
    return name


@tool
def fail() -> str:
    """Fail."""
    raise ValueError("no luck")


@tool(idempotent=True)
def again() -> str:
    """Safe to repeat."""
    return "done again"


agent = Agent(name="a", system_prompt="Sys.", provider="offline", tools=[wait, fail, again])


def chain(agent: AgentDefinition) -> Provider:
    return chain_of(agent, gate=local_gate({}))


async def run(model: Provider, log: Log | None = None, **more: Any) -> TurnResult:
    more.setdefault("progress", TurnProgress(user=UserMessage(content="hi", turn_id="t")))
    outcome = await TurnRun(
        agent=more.pop("agent", agent).definition,
        history=History(messages=more.pop("history", ())),
        connect=lambda _: model,
        context=CONTEXT,
        log=log or Log(),
        **more,
    ).run()
    assert isinstance(outcome, TurnResult)
    return outcome


async def test_a_reply() -> None:
    model = ScriptedProvider(says("Hello"))
    log = Log()
    history: list[Message] = [UserMessage(content="before"), AssistantMessage(content="yes")]
    result = await run(model, log, history=history)
    assert (result.text, result.steps) == ("Hello", 1)
    assert result.usage == Usage(input_tokens=10, output_tokens=2)
    assert [message.turn_id for message in result.messages] == ["t", "t"]
    [request] = model.requests
    assert (request.model, request.system_prompt) == ("script-1", "Sys.")
    assert [message.content for message in request.messages] == ["before", "yes", "hi"]
    # The last response is committed with the turn, not recorded before.
    assert log.steps == []


@pytest.mark.parametrize("leaves_it_pending", [True, False])
async def test_a_tool_that_cancels_its_own_task_leaves_no_call_open(
    leaves_it_pending: bool,
) -> None:
    @tool
    async def give_up() -> str:
        """Cancel whoever called."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if not leaves_it_pending:
            await asyncio.sleep(0)
        return "never mind"

    model = ScriptedProvider(calls(call("give_up")), says("never said"))
    with pytest.raises(RuntimeError, match="cancelled the task"):
        await run(model, agent=Agent(name="a", provider="offline", tools=[give_up]))
    assert len(model.requests) == 1


async def test_tools_run_side_by_side_and_results_keep_the_order_of_the_calls() -> None:
    finished.clear()
    model = ScriptedProvider(
        calls(
            call("wait", "slow", seconds=0.1, name="slow"),
            call("wait", "fast", seconds=0, name="fast"),
        ),
        says("Hello"),
    )
    log = Log()
    result = await run(model, log)
    assert finished == ["fast", "slow"]
    recorded = [step.message.call_id for step in log.steps if isinstance(step, ToolStep)]
    assert recorded == ["fast", "slow"]
    roles = [message.role for message in result.messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]
    assert [message.content for message in result.messages[2:4]] == ["slow", "fast"]
    assert result.steps == 4
    assert model.requests[1].messages == list(result.messages[:4])


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (call("fail"), "ValueError: no luck"),
        (call("nothing"), "there is no tool 'nothing'; the tools are: wait, fail, again"),
        (call("wait", seconds="x", name="n"), "invalid arguments: seconds"),
        (
            ToolCall(id="c1", name="wait", arguments={}, malformed="{"),
            "invalid arguments: they are not a JSON object",
        ),
    ],
)
async def test_what_goes_wrong_in_a_tool_is_told_to_the_model(wanted: ToolCall, told: str) -> None:
    result = await run(ScriptedProvider(calls(wanted), says("Hello")))
    message = result.messages[2]
    assert isinstance(message, ToolMessage)
    assert message.is_error
    assert message.content.startswith(told)


async def test_a_turn_taken_over_continues_behind_its_last_step() -> None:
    """`done` has a result; `again` may be repeated; the outcome of `wait` is unknown."""
    finished.clear()
    response = calls(
        call("fail", "done"),
        call("again", "again"),
        call("wait", "unknown", seconds=0, name="must not run"),
    )
    steps: list[Step] = [
        ModelStep(message=response.message, usage=Usage(input_tokens=1)),
        ToolStep(message=ToolMessage(call_id="done", name="fail", content="recorded")),
    ]
    model = ScriptedProvider(says("Hello"))
    progress = TurnProgress(user=UserMessage(content="hi"), steps=steps)
    result = await run(model, progress=progress)
    assert finished == []
    contents = [message.content for message in result.messages if message.role == "tool"]
    assert contents == ["recorded", "done again", UNKNOWN_OUTCOME]
    assert result.usage == Usage(input_tokens=11, output_tokens=2)
    assert len(model.requests) == 1


async def test_calls_of_a_turn_that_was_only_parked_are_made() -> None:
    finished.clear()
    response = calls(call("wait", "open", seconds=0, name="now"))
    steps: list[Step] = [ModelStep(message=response.message)]
    progress = TurnProgress(user=UserMessage(content="hi"), steps=steps)
    await run(ScriptedProvider(says("Hello")), progress=progress, interrupted=False)
    assert finished == ["now"]


async def test_a_turn_taken_over_after_its_last_response_asks_no_more() -> None:
    steps: list[Step] = [ModelStep(message=AssistantMessage(content="Hello"))]
    progress = TurnProgress(user=UserMessage(content="hi"), steps=steps)
    assert (await run(ScriptedProvider(), progress=progress)).text == "Hello"


async def test_max_steps() -> None:
    small = Agent(name="small", provider="offline", tools=[again], max_steps=2)
    model = ScriptedProvider(*(calls(call("again", f"c{n}")) for n in range(5)))
    with pytest.raises(MaxStepsExceeded, match=r"2 model responses.*max_steps"):
        await run(model, agent=small)
    assert len(model.requests) == 2


async def test_repeated_call_ids_are_made_unique() -> None:
    model = ScriptedProvider(calls(call("again", "x")), calls(call("again", "x")), says("Hello"))
    result = await run(model)
    ids = [message.call_id for message in result.messages if isinstance(message, ToolMessage)]
    assert len(set(ids)) == 2


async def test_a_failure_in_passing_is_ridden_out() -> None:
    busy = ProviderUnavailable("busy", retry_after=0)
    assert (
        await run(ScriptedProvider(busy, busy, says("Hello")), retry=RetryPolicy(max_retries=2))
    ).text == "Hello"
    with pytest.raises(ProviderUnavailable):
        await run(ScriptedProvider(busy, busy), retry=RetryPolicy(max_retries=1))
    with pytest.raises(ProviderRejected):
        await run(ScriptedProvider(ProviderRejected("no"), says("Hello")))


async def test_shown_text_is_withdrawn_before_it_comes_again() -> None:
    log = Log()
    cut = ProviderUnavailable("cut", retry_after=0)
    await run(ScriptedProvider(cut, says("Hello")), log, stream=True)
    assert log.shown == ["He", "<reset>", "Hello"]


def test_waits_grow_and_follow_the_server() -> None:
    assert retry_delay(ProviderUnavailable("x", retry_after=7), 1) == 7
    for failures, ceiling in ((1, 0.5), (2, 1), (3, 2), (20, 30)):
        delay = retry_delay(ProviderUnavailable("x"), failures)
        assert ceiling / 2 <= delay <= ceiling


@pytest.mark.parametrize("lost_at", [0, 1])
async def test_a_lost_lease_stops_the_loop(lost_at: int) -> None:
    finished.clear()
    model = ScriptedProvider(
        calls(call("again", "c1"), call("wait", "c2", seconds=30, name="stopped")),
        says("Hello"),
    )
    with pytest.raises(LeaseLost):
        await run(model, Log(lost_at=lost_at))
    assert len(model.requests) == 1
    assert finished == []


@tool
def leave() -> str:
    """End the process."""
    raise SystemExit(3)


@tool
async def give_up() -> str:
    """Cancel oneself."""
    raise asyncio.CancelledError


@tool
def exhausted() -> str:
    """Leak a StopIteration."""
    return str(next(iter(())))


async def test_a_tool_cannot_end_the_worker_or_the_turn() -> None:
    wild = Agent(name="wild", provider="offline", tools=[leave, give_up, exhausted])
    wanted = (call("leave", "1"), call("give_up", "2"), call("exhausted", "3"))
    result = await run(ScriptedProvider(calls(*wanted), says("Hello")), agent=wild)
    told = [m.content for m in result.messages if isinstance(m, ToolMessage)]
    assert told[0] == "SystemExit: 3"
    assert told[1].startswith("CancelledError")
    assert told[2].startswith("RuntimeError: the tool raised StopIteration")
    assert result.text == "Hello"
