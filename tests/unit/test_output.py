"""Structured output: schemas, validation, retries, and what producers get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentapi import Agent, EventType, ToolContext, tool
from agentapi.agents.output import OutputType
from agentapi.conversation.messages import UserMessage
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.progress import TurnProgress
from agentapi.engine.turn_log import NoLog
from agentapi.errors import InvalidAgent, InvalidOutput, TurnFailed
from agentapi.providers.openai.format import request_body
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.turns import ModelStep, TurnResult, step_from_json, step_to_json
from orchestrator import AsyncOrchestrator, Orchestrator

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]


class City(BaseModel):
    name: str
    people: int = Field(ge=0)
    twin: str | None = None


PARIS = '{"name": "Paris", "people": 2}'


def teller(**more: Any) -> Agent[City]:
    return Agent(name="teller", provider="openai", output_type=City, **more)


def test_a_reply_that_fits(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says(PARIS))
    orchestrator = eager_orchestrator([teller()])
    result = orchestrator.enqueue("teller", "Paris?", conversation_id="c").result()
    assert result.output == City(name="Paris", people=2)
    assert result.text == PARIS
    assert orchestrator.history("c")[1]["content"] == PARIS
    [request] = model.requests
    assert request.output is not None
    body = request_body(request)["response_format"]["json_schema"]
    assert (body["name"], body["strict"]) == ("City", True)
    assert body["schema"]["required"] == ["name", "people", "twin"]
    assert body["schema"]["additionalProperties"] is False


def test_what_is_wrong_goes_back_to_the_model(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("It is big."), says('{"name": "Paris", "people": -1}'), says(PARIS))
    orchestrator = eager_orchestrator([teller()])
    turn = orchestrator.enqueue("teller", "Paris?", conversation_id="c")
    result = turn.result(output_type=City)
    assert result.output is not None
    assert result.output.people == 2
    assert result.steps == 3
    last = [message.content for message in model.requests[2].messages]
    assert last[:2] == ["Paris?", "It is big."]
    assert "Invalid JSON" in last[2]
    assert "people: Input should be greater than or equal to 0" in last[4]
    # The history holds the reply only, and begins each turn with what the user said.
    assert [message["content"] for message in orchestrator.history("c")] == ["Paris?", PARIS]
    assert orchestrator.enqueue("teller", "?", conversation_id="c").status().ended


def test_it_gives_up(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("one"), says("two"), says("three"))
    turn = eager_orchestrator([teller(output_retries=1)]).enqueue("teller", "Paris?")
    with pytest.raises(TurnFailed, match=r"invalid_output.*2 times.*output_retries"):
        turn.result()
    assert len(model.requests) == 2


async def test_a_takeover_continues_behind_a_rejected_reply(script: Script) -> None:
    rejected = ModelStep(message=says("one").message, rejected="not so")
    model = script(says("two"), says(PARIS))
    agent = teller(output_retries=1)

    async def take_over() -> TurnResult:
        progress = TurnProgress(user=UserMessage(content="Paris?"))
        progress.steps = [step_from_json(step_to_json(rejected))]
        context = ToolContext(conversation_id="c", turn_id="t")
        outcome = await TurnRun(
            agent=agent.definition,
            history=History(),
            connect=lambda _: model,
            progress=progress,
            context=context,
            log=NoLog(),
        ).run()
        assert isinstance(outcome, TurnResult)
        return outcome

    # The earlier refusal counts, and the model is told of it.
    with pytest.raises(InvalidOutput, match="replied 2 times"):
        await take_over()
    assert (await take_over()).output == City(name="Paris", people=2)
    assert [m.content for m in model.requests[1].messages] == ["Paris?", "one", "not so"]


@pytest.mark.parametrize(
    ("kind", "reply", "kept"),
    [(City, f"```json\n{PARIS}\n```", PARIS), (list[int], '{"value": [1]}', "[1]")],
    ids=str,
)
def test_a_stream_shows_what_was_accepted_as_it_is_kept(
    script: Script, eager_orchestrator: Eager, kind: Any, reply: str, kept: str
) -> None:
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    script(calls(call("look"), text="Let me look."), says("It is big."), says(reply))
    agent = Agent(name="teller", provider="openai", output_type=kind, tools=[look])
    turn = eager_orchestrator([agent]).enqueue("teller", "Paris?", stream=True)
    seen = [event for event in turn.events() if event.type in (EventType.DELTA, EventType.STEP)]
    shown = [event.data["text"] for event in seen if event.type is EventType.DELTA]
    assert shown == ["Let me look.", kept]
    assert turn.result().text == kept
    steps = [event.data for event in seen if event.type is EventType.STEP]
    assert [step.get("rejected", False) for step in steps] == [False, False, True]


async def test_a_stream_of_an_agent_by_itself(script: Script) -> None:
    script(says("It is big."), says(PARIS))
    assert [text async for text in teller().stream("Paris?")] == [PARIS]


def test_tools_come_before_the_reply(script: Script, eager_orchestrator: Eager) -> None:
    @tool
    def count(city: str) -> int:
        """Count."""
        return 2

    script(calls(call("count", city="Paris")), says(f"```json\n{PARIS}\n```"))
    result = eager_orchestrator([teller(tools=[count])]).enqueue("teller", "?").result()
    assert result.output == City(name="Paris", people=2)


@pytest.mark.parametrize(
    ("kind", "reply", "value", "text"),
    [
        (list[int], '{"value": [1, 2]}', [1, 2], "[1,2]"),
        (bool, '{"value": true}', True, "true"),
        (dict[str, int], '{"value": {"a": 1}}', {"a": 1}, '{"a":1}'),
        (list[City], f'{{"value": [{PARIS}]}}', [City(name="Paris", people=2)], None),
    ],
    ids=str,
)
def test_types_that_are_no_objects(kind: Any, reply: str, value: Any, text: str | None) -> None:
    output: OutputType[Any] = OutputType(kind, "a")
    assert output.spec.schema["type"] == "object"
    read, kept = output.read(reply)
    assert read == value
    assert text is None or kept == text
    assert output.load(kept) == value
    for wrong in ("[]", "{}", "no"):
        with pytest.raises(ValidationError):
            output.read(wrong)


class Renamed(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date = Field(alias="Day")


@pytest.mark.parametrize("kind", [Renamed, list[Renamed]], ids=str)
def test_a_reply_is_read_again_as_it_was_read_first(kind: Any) -> None:
    """Aliases and strict types: the text that is kept is the model's own."""
    output: OutputType[Any] = OutputType(kind, "a")
    day = '{"Day": "2026-11-23"}'
    value, text = output.read(day if kind is Renamed else f'{{"value": [{day}]}}')
    assert output.load(text) == value


def test_what_is_no_output_type() -> None:
    with pytest.raises(InvalidAgent, match="has no JSON schema"):
        Agent(provider="openai", output_type=Callable)  # type: ignore[arg-type]
    with pytest.raises(InvalidAgent, match="output_retries is -1"):
        teller(output_retries=-1)


def test_a_producer_that_does_not_know_the_agent(script: Script, eager_orchestrator: Eager) -> None:
    script(says(PARIS))
    orchestrator = eager_orchestrator([teller()])
    turn = orchestrator.enqueue("teller", "?").info()
    elsewhere = replace(turn, answered_by="unknown")
    assert orchestrator.output_of(elsewhere) == {"name": "Paris", "people": 2}
    with pytest.raises(ValidationError):
        orchestrator.output_of(turn, list[int])


async def test_in_process_and_for_asyncio(script: Script) -> None:
    script(says(PARIS), says(PARIS))
    result = await teller().run_turn("Paris?")
    assert result.output is not None
    assert result.output.name == "Paris"
    async with AsyncOrchestrator.eager([teller()]) as orchestrator:
        turn = await orchestrator.enqueue("teller", "?")
        assert (await turn.result(output_type=City)).output == City(name="Paris", people=2)
        assert (await turn.result()).output == City(name="Paris", people=2)


async def test_offline_gives_the_smallest_that_fits() -> None:
    class Trip(BaseModel):
        title: str
        cities: list[City] = Field(min_length=1)
        long: bool

    agent = Agent(provider="offline", output_type=Trip)
    output = (await agent.run_turn("Spring")).output
    assert output is not None
    assert (output.title, output.cities[0].name, output.long) == ("Spring", "Spring", False)
    given = await Agent(provider="offline", output_type=City).run_turn(f"Take {PARIS}")
    assert given.output == City(name="Paris", people=2)
    assert isinstance(given.messages[0], UserMessage)


def test_a_number_that_is_none_reads_as_it_was_accepted(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(says('{"value": NaN}'))
    orchestrator = eager_orchestrator(
        [Agent(name="teller", provider="openai", output_type=list[float] | float)]  # type: ignore[arg-type]
    )
    turn = orchestrator.enqueue("teller", "?").info()
    assert orchestrator.output_of(turn) != orchestrator.output_of(turn)
    elsewhere = replace(turn, answered_by="unknown")
    assert orchestrator.output_of(elsewhere) != orchestrator.output_of(elsewhere)
