"""Replies that a model did not complete: kept with their reason, continued, or failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from agentapi import Agent, FinishReason, Limits, ToolContext, TurnResult, UserMessage, tool
from agentapi.conversation.finish import CONTINUE
from agentapi.conversation.joining import joined
from agentapi.conversation.messages import AssistantMessage, dumps, loads, to_dict
from agentapi.engine.continuing import CUT_OUTPUT
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.progress import TurnProgress
from agentapi.engine.requested import Requested
from agentapi.errors import (
    ContextTooLong,
    IncompleteReply,
    InvalidAgent,
    InvalidOutput,
    ProviderUnavailable,
)
from agentapi.providers import ModelResponse, providers
from agentapi.stores.redis.calls_codec import call_book, reply_to_json
from agentapi.testing import ScriptedProvider, assert_valid_history, call, calls, says
from agentapi.turns import (
    ChildReply,
    ModelStep,
    Step,
    TurnStatus,
    step_from_json,
    step_to_json,
)
from agentapi.turns.model import EventType
from agentapi.turns.request_options import RequestedOutput, RequestOptions, Sampling
from orchestrator import Orchestrator
from workers.turns.events import _Pending

LENGTH = FinishReason.LENGTH


class City(BaseModel):
    name: str


@tool
def look() -> str:
    """Look."""
    return "found"


@dataclass
class Log:
    """Keeps what it hears."""

    steps: list[Step] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def record(self, step: Step, steps: list[Step]) -> None:
        # As a worker does: what is not stored is lost.
        self.steps.append(step_from_json(step_to_json(step)))
        steps.append(step)

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        (self.refused if refusal else self.shown).append(text)

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        raise AssertionError("no client tools")

    async def joined(self, steps: list[Step]) -> None:
        pass

    async def reset(self) -> None:
        self.shown.append("<reset>")


def cut(text: str) -> ModelResponse:
    return says(text, finish_reason=LENGTH)


def agent_of(**options: Any) -> Agent[Any]:
    return Agent(name="a", provider="offline", **options)


async def run(
    agent: Agent[Any],
    model: ScriptedProvider,
    log: Log | None = None,
    steps: Sequence[Step] = (),
    options: RequestOptions | None = None,
) -> TurnResult[Any]:
    outcome = await TurnRun(
        agent=agent.definition,
        history=History(),
        progress=TurnProgress(user=UserMessage(content="hi", turn_id="t"), steps=list(steps)),
        context=ToolContext(conversation_id="c", turn_id="t"),
        log=log or Log(),
        connect=lambda _: model,
        stream=True,
        requested=Requested(options=options, agent="a"),
    ).run()
    assert isinstance(outcome, TurnResult)
    assert_valid_history(outcome.messages)
    return outcome


@pytest.mark.parametrize("reason", list(FinishReason)[2:])
async def test_an_accepted_reply_says_why_it_ended(reason: FinishReason) -> None:
    log = Log()
    result = await run(agent_of(), ScriptedProvider(says("half a", finish_reason=reason)), log)
    assert (result.text, result.finish_reason) == ("half a", reason)
    reply = result.messages[-1]
    assert isinstance(reply, AssistantMessage)
    assert reply.finish_reason is reason
    assert loads(dumps(reply)) == reply
    assert "".join(log.refused if reason is FinishReason.REFUSAL else log.shown) == "half a"
    assert log.steps == []


def test_messages_without_a_reason_were_complete() -> None:
    made = call("look")
    for calling in ((), (made,)):
        message = AssistantMessage(content="x", tool_calls=calling)
        data = to_dict(message)
        assert "finish_reason" not in data
        assert loads(dumps(message)) == message
    assert AssistantMessage(content="", tool_calls=(made,)).finish_reason is FinishReason.TOOL_CALLS
    newer = b'{"v":1,"role":"assistant","content":"x","finish_reason":"paused"}'
    read = loads(newer)
    assert isinstance(read, AssistantMessage)
    assert read.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("reason", list(FinishReason)[2:])
async def test_an_agent_that_insists_fails(reason: FinishReason) -> None:
    agent = agent_of(on_incomplete="fail")
    with pytest.raises(IncompleteReply, match=f"finish reason {reason.value}") as caught:
        await run(agent, ScriptedProvider(says("half", finish_reason=reason)))
    assert caught.value.finish_reason == reason.value
    assert (await run(agent, ScriptedProvider(says("whole")))).text == "whole"


async def test_a_reply_is_continued_without_a_seam() -> None:
    log = Log()
    model = ScriptedProvider(cut("one tw"), cut("o thr"), says("ee"))
    result = await run(agent_of(on_incomplete="continue"), model, log)
    assert (result.text, result.finish_reason) == ("one two three", FinishReason.STOP)
    assert [message.role for message in result.messages] == ["user", "assistant"]
    assert "".join(log.shown) == "one two three"
    assert result.usage.output_tokens == 6
    asked = [[message.content for message in request.messages] for request in model.requests]
    assert asked == [["hi"], ["hi", "one tw", CONTINUE], ["hi", "one two thr", CONTINUE]]
    assert [step.message.content for step in log.steps] == ["one tw", "one two thr"]


@pytest.mark.parametrize("recorded", [1, 2])
async def test_a_takeover_continues_behind_the_last_part(recorded: int) -> None:
    log = Log()
    agent = agent_of(on_incomplete="continue")
    await run(agent, ScriptedProvider(cut("one tw"), cut("o thr"), says("ee")), log)
    rest = ScriptedProvider(*[cut("o thr"), says("ee")][recorded - 1 :])
    result = await run(agent, rest, steps=log.steps[:recorded])
    assert result.text == "one two three"
    assert rest.acts == rest.acts.__class__()
    assert result.steps == 3
    # A version of the agent that accepts cut replies takes what there is.
    accepted = await run(agent_of(), ScriptedProvider(), steps=log.steps[:recorded])
    assert accepted.text == ["one tw", "one two thr"][recorded - 1]
    assert accepted.finish_reason is LENGTH


async def test_a_failure_between_parts_takes_back_its_own_part_only() -> None:
    log = Log()
    model = ScriptedProvider(cut("one "), ProviderUnavailable("gone", retry_after=0), says("two"))
    result = await run(agent_of(on_incomplete="continue"), model, log)
    assert result.text == "one two"
    assert "".join(log.shown) == "one He<reset>two"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"max_continuations": 2}, 3),
        ({"max_continuations": 9, "max_steps": 2}, 2),
        ({"max_continuations": 9, "limits": Limits(tokens=30)}, 3),
    ],
)
async def test_a_reply_that_stays_cut_is_accepted_with_its_reason(
    options: dict[str, Any], parts: int
) -> None:
    model = ScriptedProvider(*[cut("x")] * 9)
    result = await run(agent_of(on_incomplete="continue", **options), model)
    assert (result.text, result.finish_reason) == ("x" * parts, LENGTH)
    assert len(model.requests) == parts


async def test_a_part_without_text_is_not_continued() -> None:
    """A model that spends all its tokens on reasoning would do so again."""
    empty = await run(agent_of(on_incomplete="continue"), ScriptedProvider(cut("")))
    assert (empty.text, empty.finish_reason) == ("", LENGTH)
    again = await run(agent_of(on_incomplete="continue"), ScriptedProvider(cut("x"), cut("")))
    assert (again.text, again.steps) == ("x", 2)


async def test_a_reply_that_fills_the_context_is_kept() -> None:
    model = ScriptedProvider(cut("x"), *[ContextTooLong("long")] * 9)
    with pytest.raises(ContextTooLong):
        await run(agent_of(), ScriptedProvider(ContextTooLong("long")))
    result = await run(agent_of(on_incomplete="continue"), model)
    assert (result.text, result.finish_reason) == ("x", LENGTH)


async def test_a_continued_reply_may_call_tools_and_be_filtered() -> None:
    agent = agent_of(on_incomplete="continue", tools=[look])
    model = ScriptedProvider(cut("I lo"), calls(call("look"), text="ok"), says("done"))
    result = await run(agent, model)
    assert [message.role for message in result.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert result.messages[1].content == "I look"
    assert model.requests[2].messages == list(result.messages[:3])
    filtered = says("b", finish_reason=FinishReason.CONTENT_FILTER)
    result = await run(agent, ScriptedProvider(cut("a"), filtered))
    assert (result.text, result.finish_reason) == ("ab", FinishReason.CONTENT_FILTER)


async def test_structured_output_that_was_cut_is_never_parsed() -> None:
    whole = '{"name": "Paris"}'
    agent = agent_of(output_type=City)
    model = ScriptedProvider(cut(whole), says(whole))
    result = await run(agent, model)
    assert result.output == City(name="Paris")
    assert model.requests[1].messages[-1].content == CUT_OUTPUT
    with pytest.raises(InvalidOutput, match="cut off"):
        await run(agent, ScriptedProvider(*[cut(whole)] * 3))
    with pytest.raises(IncompleteReply):
        await run(agent_of(output_type=City, on_incomplete="fail"), ScriptedProvider(cut(whole)))


async def test_structured_output_is_continued_and_parsed_as_a_whole() -> None:
    log = Log()
    agent = agent_of(output_type=City, on_incomplete="continue")
    model = ScriptedProvider(cut('{"name": "Pa'), says('ris"}'))
    result = await run(agent, model, log)
    assert (result.output, result.text) == (City(name="Paris"), '{"name": "Paris"}')
    assert log.shown == ['{"name": "Paris"}']
    # Joined parts that are not valid are rejected together, and leave nothing in the history.
    broken = [cut('{"broken": "'), says('"x')]
    result = await run(agent, ScriptedProvider(*broken, cut('{"na'), says('me": "Rome"}')))
    assert result.output == City(name="Rome")
    assert [message.content for message in result.messages] == ["hi", '{"name": "Rome"}']
    # A worker whose agent does not continue any more must not take a part for the whole.
    with pytest.raises(IncompleteReply):
        await run(agent_of(output_type=City), ScriptedProvider(), steps=log.steps)


async def test_a_request_that_bounds_its_reply_gets_no_more() -> None:
    options = RequestOptions(sampling=Sampling(max_output_tokens=2), decided=True)
    model = ScriptedProvider(cut("one two"))
    result = await run(agent_of(on_incomplete="continue"), model, options=options)
    assert (result.text, result.finish_reason) == ("one two", LENGTH)


async def test_a_requested_schema_is_never_checked_against_a_cut_reply() -> None:
    wanted = RequestedOutput(name="city", schema=City.model_json_schema())
    options = RequestOptions(output=wanted, decided=True)
    whole = '{"name": "Paris"}'
    model = ScriptedProvider(cut(whole), says(whole))
    assert (await run(agent_of(), model, options=options)).text == whole
    assert model.requests[1].messages[-1].content == CUT_OUTPUT
    no = says("I will not.", finish_reason=FinishReason.REFUSAL)
    refused = await run(agent_of(), ScriptedProvider(no), options=options)
    assert (refused.text, refused.finish_reason) == ("I will not.", FinishReason.REFUSAL)


@pytest.mark.parametrize("reason", [FinishReason.REFUSAL, FinishReason.CONTENT_FILTER])
async def test_a_refusal_is_not_taken_for_output(reason: FinishReason) -> None:
    log = Log()
    model = ScriptedProvider(says("I will not.", finish_reason=reason))
    result = await run(agent_of(output_type=City), model, log)
    assert (result.output, result.text, result.finish_reason) == (None, "I will not.", reason)
    assert log.refused == (["I will not."] if reason is FinishReason.REFUSAL else [])


def test_what_providers_get_back_is_joined() -> None:
    def part(text: str, **data: Any) -> AssistantMessage:
        return AssistantMessage(content=text, provider_data=data)

    both = joined(part("a", g={"parts": [1]}), part("b", g={"parts": [2]}))
    assert (both.content, both.provider_data) == ("ab", {"g": {"parts": [1, 2]}})
    # Half of a reply must not pass for the whole.
    for before in (part("a"), part("a", g={"parts": 1}), part("a", g={"other": []})):
        assert joined(before, part("b", g={"parts": [2]})).provider_data == {}


def test_refused_text_is_not_mixed_with_other_text() -> None:
    pending = _Pending()
    for data in ({"text": "a"}, {"text": "b"}, {"text": "c", "refusal": True}, {"text": "d"}):
        pending.add(EventType.DELTA, data)
    assert [event.data for event in pending.events] == [
        {"text": "ab"},
        {"text": "c", "refusal": True},
        {"text": "d"},
    ]


def test_steps_of_older_releases_continue_nothing() -> None:
    old = b'{"v":1,"kind":"model","message":{"v":1,"role":"assistant","content":"x"},"usage":{}}'
    step = step_from_json(old)
    assert isinstance(step, ModelStep)
    assert not step.continued


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_incomplete": "repeat"}, "expected one of 'accept', 'continue', 'fail'"),
        ({"max_continuations": 0}, "max_continuations is 0, expected 1 or more"),
    ],
)
def test_policies_that_are_not_valid(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidAgent, match=said):
        agent_of(**options)


@pytest.mark.parametrize("reason", list(FinishReason)[2:])
def test_an_agent_that_asks_another_is_told_what_is_missing(
    reason: FinishReason, eager_orchestrator: Callable[..., Orchestrator]
) -> None:
    helper = Agent(name="helper", provider="gemini")
    lead = Agent(name="lead", provider="openai", tools=[helper.as_tool()])
    asks = ScriptedProvider(calls(call("helper", message="go")), says("done"))
    answers = ScriptedProvider(says("half a", finish_reason=reason))
    with providers.replaced("openai", lambda: asks), providers.replaced("gemini", lambda: answers):
        eager_orchestrator([lead]).enqueue("lead", "hi").result()
    told = asks.requests[1].messages[-1].content
    note = f"half a\n[this reply is not complete: {reason.value}]"
    assert told == ("half a" if reason is FinishReason.REFUSAL else note)


def test_replies_to_agents_are_stored_with_their_reason() -> None:
    for reason in (FinishReason.STOP, LENGTH):
        reply = ChildReply(turn_id="t", status=TurnStatus.COMPLETED, text="x", finish_reason=reason)
        stored = reply_to_json(reply)
        assert (b"finish_reason" in stored) is (reason is LENGTH)
        assert call_book({"r:t": stored}, 1).replies["t"] == reply
