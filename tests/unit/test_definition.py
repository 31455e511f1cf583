"""What workers run of an agent: a frozen definition without its conversation."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import ModuleType

import pytest

from agentapi import Agent, ConfigurationError, InMemoryMemory, handoff, load_settings
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.registry import by_name, find_agents, load_agents
from workers.app import create_app

other = Agent(name="other", provider="offline")
front = Agent(
    name="front",
    provider=["offline", "offline:b"],
    tools=[handoff(other), other.as_tool()],
    memory=InMemoryMemory(),
)


@pytest.fixture
def shop() -> Iterator[str]:
    module = ModuleType("shop_of_this_test")
    vars(module).update(front=front, ask_other=other.as_tool(), text="no agent")
    sys.modules[module.__name__] = module
    yield module.__name__
    del sys.modules[module.__name__]


def test_a_definition_is_frozen_and_knows_nothing_of_a_conversation() -> None:
    definition = front.definition
    with pytest.raises(FrozenInstanceError):
        definition.name = "back"  # type: ignore[misc]
    assert definition.name == front.name == "front"
    assert not hasattr(definition, "__dict__")
    assert not any(hasattr(definition, name) for name in ("memory", "run", "run_turn", "stream"))


async def test_turns_of_an_agent_leave_its_definition_as_it_was() -> None:
    agent = Agent(provider="offline", tools=[handoff(other)])
    before = {name: getattr(agent.definition, name) for name in AgentDefinition.__slots__}
    await agent.run("hello")
    await agent.run("/transfer_to_other {}")
    after = {name: getattr(agent.definition, name) for name in AgentDefinition.__slots__}
    assert before == after


def test_tools_pass_on_definitions_and_names_alone_pass_on_none() -> None:
    by_object, by_word = handoff(other), handoff("other")
    assert (by_object.target, by_object.definition) == ("other", other.definition)
    assert (by_word.target, by_word.definition) == ("other", None)
    assert front.definition.handoff_to("other") is other.definition
    assert front.definition.handoff_to("nobody") is None


def test_a_registry_finds_agents_and_those_that_their_tools_name(shop: str) -> None:
    assert find_agents([shop]) == [front]
    assert load_agents([shop]) == {"front": front.definition, "other": other.definition}
    # A definition registers like its agent.
    assert by_name([front, front.definition]) == load_agents([shop])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("agent = ", "SyntaxError at broken_shop.py line 1: invalid syntax"),
        (
            "import re\nre.compile('(')\n",
            "PatternError|error at broken_shop.py line 2: missing \\)",
        ),
        ("def f():\n    raise KeyError\n\nf()", "KeyError at broken_shop.py line 2$"),
        ("raise ValueError('one\\n  two')", "ValueError at broken_shop.py line 1: one two$"),
        ("import re, no_such", "ModuleNotFoundError at broken_shop.py line 1: No module named"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_shop.py").write_text(text)
    said = re.escape("AGENTAPI_AGENTS names 'broken_shop', which cannot be imported: ")
    with pytest.raises(ConfigurationError, match=f"^{said}({why})") as raised:
        find_agents(["broken_shop"])
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("name", ["nonesuch", "nonesuch.agents"])
def test_a_module_that_does_not_exist_is_named(name: str) -> None:
    said = "No module named 'nonesuch'; expected a module on the Python path, such as shop.agents"
    with pytest.raises(ConfigurationError, match=said):
        find_agents([name])


def test_workers_hold_definitions_and_refuse_an_agent_with_a_memory(shop: str) -> None:
    with pytest.raises(ConfigurationError, match=r"agent 'front' has a memory \(InMemory"):
        create_app(load_settings(), [front])
    with pytest.raises(ConfigurationError, match=r"agent 'front' has a memory"):
        create_app(load_settings(agents=shop))
    app = create_app(load_settings(eager=True, memory="memory"), [front])
    try:
        assert app.runtime.agents["front"] is front.definition
        assert all(isinstance(agent, AgentDefinition) for agent in app.runtime.agents.values())
    finally:
        app.runtime.stop()
