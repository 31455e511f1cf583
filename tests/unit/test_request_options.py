"""What a request decides, and what the agent that runs lets it decide."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agentapi import Agent, RequestPolicy, ToolContext, handoff, load_settings, tool
from agentapi.agents.accepted import AcceptedRequests, accepted_by
from agentapi.agents.output import OutputType
from agentapi.conversation.messages import UserMessage
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.progress import TurnProgress
from agentapi.engine.reply_format import InvalidReply, check_requested, reply_format
from agentapi.engine.requested import Requested
from agentapi.engine.turn_log import NoLog
from agentapi.errors import ConfigurationError, InvalidAgent, InvalidInput, TurnFailed
from agentapi.providers import ModelRequest, providers, register_provider
from agentapi.providers.base import OutputSpec
from agentapi.providers.gemini.client import _config
from agentapi.providers.openai.format import request_body
from agentapi.signals import LeaseLost
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.turns import (
    RequestedOutput,
    RequestOptions,
    RequestRefused,
    Sampling,
    Step,
    TurnResult,
    step_from_json,
    step_to_json,
)
from agentapi.turns.request_options import SAMPLING
from agentapi.turns.request_policy import DEFAULT_POLICY, POLICY_VALUES, grant
from orchestrator import Orchestrator, TurnRequest

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]

EVERYTHING = RequestOptions(
    instructions="Be brief.",
    sampling=Sampling(temperature=0.5, seed=0, reasoning_effort="low"),
    output=RequestedOutput(name="x", schema={"type": "object"}),
    store=False,
)
NOTHING_ALLOWED = RequestPolicy(
    instructions="refuse", sampling="refuse", reasoning="refuse", output="refuse", store="refuse"
)

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
floats = st.none() | st.floats(-2, 2)
options = st.builds(
    RequestOptions,
    instructions=st.none() | text,
    replace=st.booleans(),
    sampling=st.builds(
        Sampling,
        temperature=floats,
        top_p=floats,
        presence_penalty=floats,
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        stop=st.lists(text, max_size=4).map(tuple),
        logit_bias=st.dictionaries(text, st.floats(-100, 100), max_size=3),
        max_output_tokens=st.none() | st.integers(1, 10**6),
        reasoning_effort=st.none() | text,
    ),
    output=st.none()
    | st.builds(RequestedOutput, name=text, schema=st.none() | st.just({"a": [1]})),
    store=st.booleans(),
    bare=st.booleans(),
    decided=st.booleans(),
)


@hypothesis_settings(deadline=None)
@given(options)
def test_options_are_read_as_they_were_stored(kept: RequestOptions) -> None:
    assert RequestOptions.from_json(kept.to_json()) == kept


def test_options_of_a_newer_release_are_read() -> None:
    stored = {"instructions": "x", "tone": "kind", "sampling": {"temperature": 1, "heat": 3}}
    read = RequestOptions.from_json(json.dumps(stored).encode())
    assert read == RequestOptions(instructions="x", sampling=Sampling(temperature=1))
    seed, stop = {"seed": "x"}, {"stop": [1]}
    wrong: Any
    for wrong in ([], {"instructions": 3}, {"sampling": seed}, {"sampling": stop}):
        with pytest.raises((TypeError, ValueError)):
            RequestOptions.from_json(json.dumps(wrong).encode())


def test_a_policy_decides() -> None:
    granted = grant(EVERYTHING, DEFAULT_POLICY, "a")
    assert granted.options == replace(EVERYTHING, decided=True)
    assert granted.ignored == ()
    deaf = RequestPolicy(instructions="ignore", sampling="ignore")
    granted = grant(EVERYTHING, deaf, "a")
    assert set(granted.ignored) == {"instructions", "temperature", "seed"}
    assert granted.options.instructions is None
    assert granted.options.sampling == Sampling(reasoning_effort="low")
    with pytest.raises(RequestRefused) as caught:
        grant(EVERYTHING, NOTHING_ALLOWED, "a")
    named = {"temperature", "seed", "reasoning_effort", "instructions", "output", "store"}
    assert set(caught.value.names) == named
    assert grant(RequestOptions(), NOTHING_ALLOWED, "a").options.empty
    for name in POLICY_VALUES:
        with pytest.raises(ValueError, match=f"{name} is 'maybe'"):
            RequestPolicy(**{name: "maybe"})  # type: ignore[arg-type]


def test_the_policy_of_the_fleet_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_REQUEST_POLICY", '{"instructions": "refuse"}')
    assert load_settings().request_policy == RequestPolicy(instructions="refuse")
    for wrong in ('{"instructions": "sometimes"}', '{"tools": "accept"}', "no"):
        monkeypatch.setenv("AGENTAPI_REQUEST_POLICY", wrong)
        with pytest.raises(ConfigurationError, match="AGENTAPI_REQUEST_POLICY"):
            load_settings()


def test_what_workers_tell_gateways() -> None:
    register_provider("half", lambda: ScriptedProvider(), sampling=["temperature"])
    agent = Agent(name="a", provider=["openai", "half"], accepts=NOTHING_ALLOWED)
    known = accepted_by(agent.definition, DEFAULT_POLICY)
    assert known.sampling == {"temperature"}
    assert AcceptedRequests.from_dict(json.loads(json.dumps(known.to_dict()))) == known
    # Two releases of the agent: only what both accept.
    other = AcceptedRequests(
        policy=RequestPolicy(instructions="replace", output="refuse"), sampling=SAMPLING
    )
    third = AcceptedRequests(policy=DEFAULT_POLICY, sampling=frozenset({"seed"}))
    both = other.both(third)
    assert both.policy == RequestPolicy(instructions="append", output="refuse")
    assert both.sampling == {"seed"}
    # Another release of the worker: nothing, or values that are not known here.
    assert AcceptedRequests.from_dict(None) is None
    assert AcceptedRequests.from_dict({"agents": ["a"]}) is None
    newer = {"policy": {"instructions": "negotiate", "sampling": "accept"}, "sampling": ["heat"]}
    read = AcceptedRequests.from_dict(newer)
    assert read is not None
    assert (read.policy.instructions, read.policy.sampling) == ("refuse", "accept")
    assert read.sampling == frozenset()
    with pytest.raises(InvalidAgent, match="sampling has heat"):
        register_provider("half", lambda: ScriptedProvider(), sampling=["heat"])
    with providers.replaced("half", lambda: ScriptedProvider()):
        assert providers.sampling("half") == {"temperature"}


def ask(orchestrator: Orchestrator, agent: str, kept: RequestOptions) -> Any:
    request = TurnRequest(agent=agent, message="hi", options=kept)
    [handle] = orchestrator.enqueue_many([request])
    return handle


def test_the_worker_decides_where_nobody_has(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("one"), says("two"), says("three"))
    agents = [
        Agent(name="open", system_prompt="Own."),
        Agent(name="closed", accepts=NOTHING_ALLOWED),
    ]
    orchestrator = eager_orchestrator(agents)
    said = RequestOptions(instructions="More.", sampling=Sampling(temperature=0.5))
    ask(orchestrator, "open", said).result()
    assert model.requests[0].system_prompt == "Own.\n\nMore."
    assert model.requests[0].sampling == Sampling(temperature=0.5)
    with pytest.raises(TurnFailed, match=r"request_refused.*temperature, instructions"):
        ask(orchestrator, "closed", said).result()
    # What was decided when the turn was accepted holds, whatever the policy is now.
    ask(orchestrator, "closed", replace(said, decided=True)).result()
    assert model.requests[1].system_prompt == "More."


async def test_a_takeover_keeps_the_policy_of_the_first_attempt(script: Script) -> None:
    """Nobody had decided when the turn was accepted; the workers have different policies."""
    model = script(calls(call("echo", text="x")), says("done"))

    @tool
    def echo(text: str) -> str:
        """Say it back."""
        return text

    agent = Agent(name="a", system_prompt="Own.", tools=[echo])
    said = RequestOptions(instructions="More.", sampling=Sampling(temperature=0.5))
    journal: list[Step] = []

    class Journal(NoLog):
        async def record(self, step: Step, steps: list[Step]) -> None:
            journal.append(step_from_json(step_to_json(step)))
            if len(journal) == 1 and stops:
                raise LeaseLost
            steps.append(step)

    async def attempt(default: RequestPolicy) -> object:
        progress = TurnProgress(user=UserMessage(content="hi"))
        progress.steps = list(journal)
        run = TurnRun(
            agent=agent.definition,
            history=History(),
            connect=lambda _: model,
            progress=progress,
            context=ToolContext(conversation_id="c", turn_id="t"),
            log=Journal(),
            requested=Requested(options=said, agent="a", default=default),
        )
        return await run.run()

    stops = True
    with pytest.raises(LeaseLost):
        await attempt(RequestPolicy(instructions="replace", sampling="ignore"))
    stops = False
    outcome = await attempt(NOTHING_ALLOWED)
    assert isinstance(outcome, TurnResult)
    first, second = model.requests
    assert first.system_prompt == second.system_prompt == "More."
    assert first.sampling == second.sampling == Sampling()
    # Only the first step has it, and none if it was decided before.
    assert [getattr(step, "policy", None) is not None for step in journal] == [True, False]


def test_after_a_handoff_the_other_agents_policy_counts(
    script: Script, eager_orchestrator: Eager
) -> None:
    model = script(calls(call("transfer_to_closed")), says("done"))
    closed = Agent(name="closed", system_prompt="Closed.", accepts=NOTHING_ALLOWED)
    first = Agent(
        name="first",
        system_prompt="First.",
        tools=[handoff(closed)],
        accepts=RequestPolicy(instructions="replace"),
    )
    kept = RequestOptions(instructions="Mine.", sampling=Sampling(temperature=0))
    turn = ask(eager_orchestrator([first, closed]), "first", kept)
    assert turn.result().text == "done"
    before, after = model.requests
    assert (before.system_prompt, before.sampling.temperature) == ("Mine.", 0)
    assert (after.system_prompt, after.sampling) == ("Closed.", Sampling())


def test_a_turn_that_is_not_to_be_stored_leaves_no_history(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(says("one"), says("two"), says("three"))
    orchestrator = eager_orchestrator([Agent(name="a")])
    kept = orchestrator.enqueue("a", "first", conversation_id="c")
    request = TurnRequest(
        agent="a", message="second", conversation_id="c", options=RequestOptions(store=False)
    )
    [handle] = orchestrator.enqueue_many([request])
    assert handle.result().text == "two"
    assert kept.result().text == "one"
    assert [m["content"] for m in orchestrator.history("c")] == ["first", "one"]


def test_a_summary_is_asked_without_tools_and_type(
    script: Script, eager_orchestrator: Eager
) -> None:
    class City(BaseModel):
        name: str

    model = script(says("plain words"))
    helper = Agent(name="helper")
    agent = Agent(name="a", system_prompt="Own.", output_type=City, tools=[helper.as_tool()])
    kept = RequestOptions(instructions="Sum up.", replace=True, bare=True, decided=True)
    assert ask(eager_orchestrator([agent]), "a", kept).result().text == "plain words"
    [request] = model.requests
    assert (request.tools, request.output, request.system_prompt) == ((), None, "Sum up.")


def test_options_that_are_too_long(eager_orchestrator: Eager) -> None:
    orchestrator = eager_orchestrator([Agent(name="a")], max_message_bytes=100)
    with pytest.raises(InvalidInput, match="instructions have 101 bytes"):
        ask(orchestrator, "a", RequestOptions(instructions="x" * 101))
    broken = RequestedOutput(name="x", schema={"type": "flavour"})
    with pytest.raises(InvalidInput, match="not a valid JSON schema"):
        ask(orchestrator, "a", RequestOptions(output=broken))


def model_request(agents: Mapping[str, Any], sampling: Sampling, **more: Any) -> ModelRequest:
    return ModelRequest(
        model="m", system_prompt="", messages=(), options=agents, sampling=sampling, **more
    )


SAMPLED = Sampling(
    temperature=0.1,
    top_p=0.2,
    presence_penalty=0.3,
    frequency_penalty=0.4,
    seed=5,
    stop=("END",),
    logit_bias={"7": -1.0},
    max_output_tokens=60,
    reasoning_effort="low",
    verbosity="high",
)


def test_what_openai_gets() -> None:
    body = request_body(model_request({"temperature": 1, "user": "u"}, SAMPLED))
    assert {name: body[name] for name in body if name not in ("model", "messages")} == {
        "user": "u",
        "temperature": 0.1,
        "top_p": 0.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "seed": 5,
        "stop": ("END",),
        "logit_bias": {"7": -1.0},
        "max_completion_tokens": 60,
        "reasoning_effort": "low",
        "verbosity": "high",
    }
    # The agent's own limit is never raised, under whichever name it has.
    for name in ("max_completion_tokens", "max_tokens"):
        for own, expected in ((50, 50), (70, 60)):
            found = request_body(model_request({name: own}, Sampling(max_output_tokens=60)))
            assert {key: found[key] for key in found if key.startswith("max")} == {name: expected}
    anything = OutputSpec(name="reply", schema={"type": "object"}, free=True)
    body = request_body(model_request({}, Sampling(), output=anything))
    assert body["response_format"] == {"type": "json_object"}


def test_what_gemini_gets() -> None:
    def sent(options: Mapping[str, Any], sampling: Sampling, **more: Any) -> dict[str, Any]:
        config = _config(model_request(options, sampling, **more))
        assert config.http_options is not None
        body: Any = config.http_options.extra_body
        return dict(body.get("generationConfig", {}))

    assert sent({"topK": 3, "maxOutputTokens": 50}, SAMPLED) == {
        "topK": 3,
        "temperature": 0.1,
        "topP": 0.2,
        "presencePenalty": 0.3,
        "frequencyPenalty": 0.4,
        "seed": 5,
        "stopSequences": ["END"],
        "maxOutputTokens": 50,
    }
    assert sent({}, Sampling()) == {}
    # What it does not get is what it does not claim.
    unsupported = SAMPLING - providers.sampling("gemini")
    assert unsupported == {"logit_bias", "verbosity"}
    anything = OutputSpec(name="reply", schema={"type": "object"}, free=True)
    assert sent({}, Sampling(), output=anything) == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-3-flash", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.8-flash", "medium", {"thinkingLevel": "MEDIUM"}),
        ("gemini-3.1-pro-preview", "minimal", {"thinkingLevel": "LOW"}),
        ("models/gemini-3-pro", "max", {"thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", "low", {"thinkingLevel": "LOW"}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-flash-lite", "low", {"thinkingBudget": 1024}),
        ("gemini-2.5-pro", "xhigh", {"thinkingBudget": 24576}),
        ("gemini-2.0-flash", "high", None),
        ("gemini-1.5-pro", "high", None),
        ("gemma-3-27b-it", "high", None),
    ],
)
def test_how_much_gemini_thinks(model: str, effort: str, expected: dict[str, Any] | None) -> None:
    def sent(own: Mapping[str, Any]) -> Any:
        request = replace(model_request(own, Sampling(reasoning_effort=effort)), model=model)
        config = _config(request)
        assert config.http_options is not None
        body: Any = config.http_options.extra_body
        return body.get("generationConfig", {}).get("thinkingConfig")

    assert sent({}) == expected
    # The agent's own level or number would contradict it; whether thoughts are shown would not.
    own = {"includeThoughts": True, "thinkingBudget": 7}
    merged = own if expected is None else {"includeThoughts": True, **expected}
    assert sent({"thinkingConfig": own}) == merged


ADDRESS: dict[str, Any] = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["street"],
    "additionalProperties": False,
}


def test_a_requested_form_is_checked() -> None:
    form = reply_format(None, RequestedOutput(name="address", schema=ADDRESS))
    assert form is not None
    assert form.read('```json\n{"street": "x"}\n```') == '{"street": "x"}'
    for wrong, said in (
        ("It is big.", "not valid JSON"),
        ('{"number": 3}', '"street" is a required property'),
        ('{"street": "x", "number": "secret"}', "number: the value is not of type"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
    ):
        with pytest.raises(InvalidReply, match=re.escape(said)) as caught:
            form.read(wrong)
        assert "secret" not in str(caught.value)
    anything = reply_format(None, RequestedOutput())
    assert anything is not None
    assert anything.read('{"a": 1}') == '{"a": 1}'
    with pytest.raises(InvalidReply):
        anything.read("[1]")


def test_an_agents_own_type_and_a_requested_one() -> None:
    class Address(BaseModel):
        street: str

    own = OutputType(Address, "a")
    both = reply_format(own, RequestedOutput(name="address", schema=ADDRESS))
    assert both is not None
    assert both.spec is own.spec
    assert both.read('{"street": "x"}') == '{"street": "x"}'
    other = {"type": "object", "required": ["town"]}
    strange = reply_format(own, RequestedOutput(name="town", schema=other))
    assert strange is not None
    with pytest.raises(InvalidReply, match="town"):
        strange.read('{"street": "x"}')
    assert reply_format(None, None) is None


def test_schemas_that_refer_to_themselves() -> None:
    tree = {
        "$defs": {"node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    }
    form = reply_format(None, RequestedOutput(name="tree", schema=tree))
    assert form is not None
    assert form.read('{"left": {"left": {}}}')
    with pytest.raises(InvalidReply, match=r"left\.left"):
        form.read('{"left": {"left": 3}}')
    for endless in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}):
        check_requested(RequestedOutput(name="x", schema=endless))
    wide = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 3} for n in range(30)}
    with pytest.raises(InvalidInput, match="too complex"):
        check_requested(
            RequestedOutput(name="x", schema={"$ref": "#/$defs/d0", "$defs": {**wide, "d30": {}}})
        )
