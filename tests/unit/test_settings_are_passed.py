"""Settings that are passed in are used everywhere: nothing reads the environment during a run."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import agentapi
from agentapi import Agent, ConfigurationError, Settings, load_settings, tool
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.tools.threads import DEFAULT_TOOL_THREADS
from orchestrator import Orchestrator
from workers.app import create_app

Script = Callable[..., ScriptedProvider]


@pytest.mark.parametrize(("passed", "environment"), [(1, 8), (2, 1)])
def test_the_tool_threads_of_an_eager_orchestrator(
    script: Script, monkeypatch: pytest.MonkeyPatch, passed: int, environment: int
) -> None:
    monkeypatch.setenv("AGENTAPI_TOOL_THREADS", str(environment))
    both = threading.Barrier(2, timeout=30 if passed > 1 else 0.2)

    @tool
    def meet() -> str:
        """Wait for the other call."""
        try:
            both.wait()
        except threading.BrokenBarrierError:
            return "alone"
        return "together"

    script(calls(call("meet", "one"), call("meet", "two")), says("done"))
    agent = Agent(name="a", provider="openai", tools=[meet])
    with Orchestrator.eager([agent], tool_threads=passed) as orchestrator:
        turn = orchestrator.enqueue("a", "go", conversation_id="c").info()
    results = [message.content for message in turn.messages if message.role == "tool"]
    assert results == (["alone"] * 2 if passed == 1 else ["together"] * 2)


def test_the_tool_threads_of_an_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_TOOL_THREADS", "9")
    app = create_app(load_settings(eager=True, memory="memory", tool_threads=1), [])
    try:
        assert app.runtime.tool_places.standing().places == 1
    finally:
        app.runtime.stop()


@tool
def long() -> str:
    """Give a long text."""
    return "x" * 400


async def test_a_change_of_the_environment_is_for_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = Agent(provider="offline", tools=[long])
    assert await agent.run("/long {}") == "long: " + "x" * 400
    monkeypatch.setenv("AGENTAPI_MAX_TOOL_RESULT_BYTES", "100")
    assert len(await agent.run("/long {}")) < 300
    monkeypatch.setenv("AGENTAPI_MAX_TOOL_RESULT_BYTES", "0")
    with pytest.raises(ConfigurationError, match="AGENTAPI_MAX_TOOL_RESULT_BYTES"):
        await agent.run("/long {}")


async def test_a_run_and_the_turns_that_it_delegates_keep_the_settings_they_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = []

    @tool
    def spoil() -> str:
        """Change the settings of the process."""
        monkeypatch.setenv("AGENTAPI_MAX_TOOL_RESULT_BYTES", "100")
        monkeypatch.setenv("AGENTAPI_MAX_DEPTH", "not a number")
        reached.append("spoiled")
        return "y" * 400

    child = Agent(name="child", provider="offline", tools=[spoil, long])
    parent = Agent(name="parent", provider="offline", tools=[child.as_tool(), long])
    reply = await parent.run('/child {"message": "/spoil {}"}')
    assert reached == ["spoiled"]
    assert reply == "child: spoil: " + "y" * 400
    with pytest.raises(ConfigurationError, match="AGENTAPI_MAX_DEPTH"):
        await parent.run('/child {"message": "/long {}"}')


def test_the_default_of_a_loop_is_that_of_the_settings() -> None:
    assert Settings.model_fields["tool_threads"].default == DEFAULT_TOOL_THREADS


def test_only_the_edges_of_agentapi_read_settings() -> None:
    root = Path(agentapi.__file__).parent
    readers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_settings")
    }
    assert readers == {"agent.py", "memory/redis.py"}
