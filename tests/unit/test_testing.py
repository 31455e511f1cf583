"""The test kit, as users' tests use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from agentapi import Agent, tool
from agentapi.errors import ProviderMisconfigured, ProviderRejected, ProviderUnavailable, TurnFailed
from agentapi.providers import providers
from agentapi.testing import (
    ScriptedProvider,
    ScriptUnused,
    after,
    assert_called,
    assert_completed,
    assert_failed,
    assert_not_called,
    assert_valid_history,
    call,
    calls,
    says,
    scripted,
)


@tool
def lookup_order(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id} is on its way"


support = Agent(name="support", system_prompt="Help.", provider="openai", tools=[lookup_order])

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Any]


def test_an_agent_with_a_script(script: Script, eager_orchestrator: Eager) -> None:
    played = script(calls(call("lookup_order", order_id="7")), says("It is on its way."))
    orchestrator = eager_orchestrator([support])
    turn = orchestrator.enqueue("support", "Where is order 7?", conversation_id="c")
    assert_completed(turn, "It is on its way.")
    assert assert_called(turn, "lookup_order", order_id="7").id == "c1"
    assert_not_called(turn, "refund")
    assert_valid_history(orchestrator.history("c"))
    assert [request.system_prompt for request in played.requests] == ["Help.", "Help."]
    assert played.requests[1].messages[-1].content == "order 7 is on its way"
    assert not played.acts


def test_faults_and_delays(script: Script, eager_orchestrator: Eager) -> None:
    busy = ProviderUnavailable("busy", retry_after=0)
    script(busy, after(0.2, says("at last")), ProviderRejected("no"))
    orchestrator = eager_orchestrator([support])
    began = time.monotonic()
    assert_completed(orchestrator.enqueue("support", "hi"), "at last")
    assert time.monotonic() - began >= 0.2
    turn = orchestrator.enqueue("support", "hi")
    assert_failed(turn, "provider_rejected")
    with pytest.raises(TurnFailed):
        turn.result()


def test_a_script_that_is_too_short_says_so(script: Script, eager_orchestrator: Eager) -> None:
    script(calls(call("lookup_order", order_id="7")))
    turn = eager_orchestrator([support]).enqueue("support", "hi")
    assert "no answer left for model call 2" in assert_failed(turn, "internal").error.message  # type: ignore[union-attr]


async def test_a_streamed_script() -> None:
    with scripted(says("one two three")) as played:
        agent = Agent(system_prompt="Help.", provider="openai")
        assert [piece async for piece in agent.stream("hi")] == ["one ", "two ", "three"]
        assert len(played.requests) == 1


async def test_a_script_ends_with_its_block() -> None:
    with scripted(says("hi"), provider="only-here"):
        assert await Agent(system_prompt="s", provider="only-here").run("hi") == "hi"
    with pytest.raises(ValueError, match="unknown provider 'only-here'"):
        Agent(system_prompt="s", provider="only-here")


@pytest.mark.usefixtures("no_live_model_calls")
@pytest.mark.parametrize("name", ["openai", "openrouter", "gemini"])
async def test_no_live_model_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "a-key-that-must-not-be-used")
    with pytest.raises(ProviderMisconfigured, match="would call a live model"):
        await Agent(system_prompt="s", provider=name).run("hi")
    assert await Agent(system_prompt="s", provider="offline").run("hi") == "You said: hi"


async def test_the_fixture_gives_live_providers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert providers.get("openai").name == "openai"
    await providers.aclose()


def test_assertions_say_what_happened(script: Script, eager_orchestrator: Eager) -> None:
    script(calls(call("lookup_order", order_id="7")), says("yo"), ProviderRejected("no such model"))
    orchestrator = eager_orchestrator([support])
    turn = orchestrator.enqueue("support", "hi")
    with pytest.raises(AssertionError, match="replied 'yo', not 'hi'"):
        assert_completed(turn, "hi")
    with pytest.raises(AssertionError, match=r"order_id='8'.*called: lookup_order\(order_id='7'\)"):
        assert_called(turn, "lookup_order", order_id="8")
    with pytest.raises(AssertionError, match="called: lookup_order"):
        assert_not_called(turn, "lookup_order")
    with pytest.raises(AssertionError, match="is completed, not failed"):
        assert_failed(turn, "deadline")
    with pytest.raises(AssertionError, match="failed: provider_rejected: no such model"):
        assert_completed(orchestrator.enqueue("support", "hi"))
    with pytest.raises(AssertionError, match=r"calls without a result: \['c1'\]"):
        assert_valid_history(orchestrator.history(turn.conversation_id)[:2])


UNUSED = """
from agentapi import Agent
from agentapi.testing import says, scripted


def test_unused(script):
    script(says("never"))


def test_fails_for_another_reason(script):
    script(says("never"))
    assert 1 == 2


def test_used(script, eager_orchestrator):
    script(says("hi"), provider="offline")
    turn = eager_orchestrator([Agent(name="a", provider="offline")]).enqueue("a", "hi")
    assert turn.result().text == "hi"


def test_nothing_is_expected(script):
    assert not script().requests
"""


def test_an_unused_script_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(UNUSED)
    run = pytester.inline_run("-p", "agentapi.testing.plugin", "-p", "no:asyncio")
    passed, _, failed = run.listoutcomes()
    assert [report.nodeid.partition("::")[2] for report in passed] == [
        "test_used",
        "test_nothing_is_expected",
    ]
    unused, other = (str(report.longrepr) for report in failed)
    assert "no agent called provider 'openai'" in unused
    assert "provider='offline'" in unused
    assert "1 == 2" in other


def test_an_unused_script_fails_its_block() -> None:
    with pytest.raises(ScriptUnused, match="the script was not used"), scripted(says("never")):
        pass
    with pytest.raises(KeyError), scripted(says("never")):
        raise KeyError
    with scripted():
        pass
