"""Several providers for one agent: what is accepted, and who is asked when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentapi import Agent, tool
from agentapi.engine.patience import LONGEST_SPREAD, RetryPolicy, retry_delay, spread
from agentapi.errors import (
    AgentAPIError,
    ContextTooLong,
    InvalidAgent,
    NoProviderAvailable,
    ProviderError,
    ProviderHeld,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderUnavailable,
    TurnParked,
)
from agentapi.providers import ModelChoice, providers, register_provider
from agentapi.providers.errors import refused
from agentapi.testing import Act, ScriptedProvider, call, calls, says
from agentapi.turns import ModelStep, TurnResult
from tests.unit.test_loop import Log, chain, run

BOTH = ["openai:gpt-a", "gemini"]

Play = Callable[..., ScriptedProvider]


@tool
def look() -> str:
    """Look."""
    return "seen"


async def ask(log: Log | None = None, provider: Any = None, **more: Any) -> TurnResult:
    agent = Agent(name="a", provider=provider or BOTH, tools=[look])
    return await run(chain(agent.definition), log, agent=agent, **more)


def unavailable(retry_after: float | None = None) -> ProviderUnavailable:
    return ProviderUnavailable("away", provider="openai", status=503, retry_after=retry_after)


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", None, ["openai"]),
        ("openai", "gpt-a", ["openai:gpt-a"]),
        ("openai:gpt-a", None, ["openai:gpt-a"]),
        ("openrouter:deepseek/r1:free", None, ["openrouter:deepseek/r1:free"]),
        (["openai:gpt-a", "gemini"], None, ["openai:gpt-a", "gemini"]),
        (("openai:gpt-a", "gemini", "openrouter"), "m", ["openai:gpt-a", "gemini:m", "openrouter"]),
        (["openai:gpt-a", "openai:gpt-b"], None, ["openai:gpt-a", "openai:gpt-b"]),
    ],
)
def test_whom_an_agent_asks(provider: Any, model: str | None, expected: list[str]) -> None:
    agent = Agent(name="a", provider=provider, model=model)
    assert [str(choice) for choice in agent.definition.choices] == expected


def test_only_the_first_colon_separates() -> None:
    [choice] = Agent(name="a", provider="openrouter:deepseek/r1:free").definition.choices
    assert choice == ModelChoice(provider="openrouter", model="deepseek/r1:free")


@pytest.mark.parametrize(
    ("provider", "model", "told"),
    [
        ([], None, r"provider is \[\], expected a name such as 'openai'.*or a list"),
        ({"openai": 1}, None, "expected a name such as"),
        (None, None, "provider is None, expected a name"),
        (["openai", 7], None, "provider 7 is a int, expected a string"),
        ("opnai:gpt-a", None, "unknown provider 'opnai': expected one of .*offline"),
        ("", None, "unknown provider ''"),
        (
            "openai:",
            None,
            "'openai:' has no model after its colon: .* like 'openai:gpt",
        ),
        (
            "openai:gpt-a",
            "gpt-b",
            r"model='gpt-b' applies to no .*openai:gpt-a\): remove one",
        ),
        (["openai", "openai"], None, "provider 'openai' is listed twice"),
        (["openai:gpt-a", "openai"], "gpt-a", "provider 'openai:gpt-a' is listed twice"),
    ],
)
def test_what_no_agent_can_ask(provider: Any, model: str | None, told: str) -> None:
    with pytest.raises(InvalidAgent, match=told):
        Agent(name="a", provider=provider, model=model)


def test_a_provider_has_no_colon_in_its_name() -> None:
    with pytest.raises(InvalidAgent, match="without a colon"):
        register_provider("open:ai", ScriptedProvider)


@pytest.mark.parametrize(
    "error",
    [
        unavailable(),
        ProviderMisconfigured("OPENAI_API_KEY is not set", provider="openai"),
        ContextTooLong("too long", provider="openai", status=400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_answers_when_the_first_cannot(
    script: Play, error: ProviderError, stream: bool
) -> None:
    first, second = script(error), script(says("Hello"), provider="gemini")
    log = Log()
    result = await ask(log, stream=stream, retry=RetryPolicy(max_retries=0))
    assert result.text == "Hello"
    assert (first.requests[0].model, second.requests[0].model) == ("gpt-a", "script-1")
    assert getattr(result.messages[-1], "model", None) == "gemini:script-1"
    assert log.shown == (["He", "<reset>", "Hello"] if stream else [])


async def test_a_provider_that_cannot_even_be_made(script: Play) -> None:
    def no_key() -> ScriptedProvider:
        raise ProviderMisconfigured("OPENAI_API_KEY is not set", provider="openai")

    script(says("Hello"), provider="gemini")
    with providers.replaced("openai", no_key):
        assert (await ask()).text == "Hello"


async def test_in_the_middle_of_a_turn_and_each_call_begins_with_the_first(script: Play) -> None:
    first = script(calls(call("look")), unavailable(), says("Hello"))
    second = script(calls(call("look")), provider="gemini")
    log = Log()
    result = await ask(log)
    assert result.text == "Hello"
    roles = [message.role for message in second.requests[0].messages]
    assert roles == ["user", "assistant", "tool"]
    assert first.requests[-1].messages == list(result.messages[:-1])
    answered = [step.message.model for step in log.steps if isinstance(step, ModelStep)]
    assert answered == ["openai:gpt-a", "gemini:script-1"]


async def test_a_request_that_all_refuse_is_not_passed_on(script: Play) -> None:
    script(ProviderRejected("no such thing", provider="openai", status=400))
    second = script(provider="gemini")
    with pytest.raises(ProviderRejected, match="no such thing"):
        await ask()
    assert second.requests == []


async def test_a_refusal_by_the_second_does_not_end_what_the_first_may_take(script: Play) -> None:
    refusal = ProviderRejected("unknown field", provider="gemini", status=400)
    first = script(unavailable(0), says("Hello"))
    second = script(refusal, provider="gemini")
    assert (await ask(retry=RetryPolicy(max_retries=1))).text == "Hello"
    assert (len(first.requests), len(second.requests)) == (2, 1)


async def test_a_refusal_and_a_first_that_stays_away_tell_of_both(script: Play) -> None:
    script(unavailable(0))
    script(ProviderRejected("unknown field", provider="gemini", status=400), provider="gemini")
    with pytest.raises(NoProviderAvailable, match="away; unknown field") as caught:
        await ask(retry=RetryPolicy(max_retries=0))
    assert [cause.provider for cause in caught.value.causes] == ["openai"]


async def test_a_refusal_behind_one_that_is_misconfigured_is_final(script: Play) -> None:
    first = script(ProviderMisconfigured("no key", provider="openai"))
    script(ProviderRejected("unknown field", provider="gemini", status=400), provider="gemini")
    with pytest.raises(ProviderRejected, match=r"^unknown field$"):
        await ask(retry=RetryPolicy(max_retries=5))
    assert len(first.requests) == 1


async def test_each_provider_gets_the_options_for_all_and_its_own(script: Play) -> None:
    first, second = script(unavailable()), script(says("Hello"), provider="gemini")
    options = {
        "temperature": 0,
        "openai": {"max_completion_tokens": 300},
        "gemini": {"maxOutputTokens": 200, "temperature": 1},
    }
    agent = Agent(name="a", provider=BOTH, options=options)
    assert (await run(chain(agent.definition), agent=agent)).text == "Hello"
    assert first.requests[0].options == {"temperature": 0, "max_completion_tokens": 300}
    assert second.requests[0].options == {"temperature": 1, "maxOutputTokens": 200}


async def test_options_under_a_name_that_is_no_provider_of_the_agent_are_sent(script: Play) -> None:
    alone = script(says("Hello"))
    options = {"openai": {"seed": 1}, "provider": {"sort": "price"}}
    agent = Agent(name="a", provider="openai", options=options)
    await run(chain(agent.definition), agent=agent)
    assert alone.requests[0].options == {"seed": 1, "provider": {"sort": "price"}}


def test_a_providers_own_options_are_a_mapping() -> None:
    with pytest.raises(InvalidAgent, match=r"options\['gemini'\] is a int, expected options for"):
        Agent(name="a", provider=BOTH, options={"gemini": 7})


async def test_a_fault_of_a_provider_of_ones_own_is_not_hidden(script: Play) -> None:
    script(ZeroDivisionError("a fault"))
    script(provider="gemini")
    with pytest.raises(ZeroDivisionError):
        await ask()


@pytest.mark.parametrize(
    ("acts", "kind"),
    [
        ((ProviderMisconfigured("a"), unavailable()), NoProviderAvailable),
        ((unavailable(), ProviderMisconfigured("b")), NoProviderAvailable),
        ((ContextTooLong("a"), ProviderMisconfigured("b")), ContextTooLong),
        ((ProviderMisconfigured("a"), ProviderMisconfigured("b")), ProviderMisconfigured),
    ],
)
async def test_when_all_fail_the_error_is_the_one_that_helps(
    script: Play, acts: tuple[Act, Act], kind: type[AgentAPIError]
) -> None:
    script(acts[0])
    script(acts[1], provider="gemini")
    with pytest.raises(kind, match=r"all of the agent's providers failed: .*; ") as caught:
        await ask(retry=RetryPolicy(max_retries=0))
    assert type(caught.value) is kind


async def test_it_waits_for_the_earliest_and_only_when_all_have_failed(script: Play) -> None:
    script(unavailable(retry_after=900))
    script(unavailable(retry_after=60), provider="gemini")
    with pytest.raises(TurnParked) as caught:
        await ask(retry=RetryPolicy(park_after=5))
    assert 60 <= caught.value.delay <= 75
    assert caught.value.failures == 1


async def test_all_of_them_failing_is_one_failure(script: Play) -> None:
    first = script(unavailable(0), unavailable(0), unavailable(0))
    second = script(unavailable(0), unavailable(0), provider="gemini")
    with pytest.raises(NoProviderAvailable):
        await ask(retry=RetryPolicy(max_retries=1))
    assert (len(first.requests), len(second.requests)) == (2, 2)


async def test_to_be_held_is_no_failure(script: Play) -> None:
    held = ProviderHeld("the budget is used up", provider="openai", retry_after=0)
    script(held, held, held, says("Hello"))
    result = await ask(provider="openai", retry=RetryPolicy(max_retries=0))
    assert result.text == "Hello"


async def test_nobody_gives_up_while_another_is_only_held(script: Play) -> None:
    held = ProviderHeld("the budget is used up", provider="gemini", retry_after=0)
    script(*[unavailable(0)] * 4)
    script(held, held, held, says("Hello"), provider="gemini")
    assert (await ask(retry=RetryPolicy(max_retries=1))).text == "Hello"


async def test_a_turn_that_is_held_parks_with_the_failures_it_had(script: Play) -> None:
    script(ProviderHeld("held", provider="openai", retry_after=60))
    with pytest.raises(TurnParked) as caught:
        await ask(provider="openai", retry=RetryPolicy(park_after=5, failures=2))
    assert caught.value.failures == 2


def test_who_waits_does_not_wake_with_all_the_others() -> None:
    delays = {spread(40) for _ in range(50)}
    assert len(delays) > 40
    assert all(40 <= delay <= 50 for delay in delays)
    assert spread(0) == 0
    assert max(spread(86_400) for _ in range(50)) <= 86_400 + LONGEST_SPREAD


def test_the_delay_of_several_is_the_shortest() -> None:
    several = NoProviderAvailable("x", causes=[unavailable(retry_after=7), unavailable()])
    assert retry_delay(several, 20) == 7
    assert retry_delay(several, 1) <= 0.5


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 128000 tokens."),
        (400, "Your input exceeds the context window of this model."),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        (413, "no more than 20 MB"),
    ],
)
def test_a_request_that_is_too_long_is_known_by_its_words(status: int, message: str) -> None:
    error = refused("openai", status, message, secret="")
    assert isinstance(error, ContextTooLong)
    assert "shorten the message" in str(error)
    assert not isinstance(refused("openai", 500, message, secret=""), ContextTooLong)
