"""Tools of a real MCP server process, over stdio and over streamable HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentapi import Agent, tool
from agentapi.errors import InvalidAgent, InvalidTool, ProviderUnavailable, TurnFailed
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.tools import McpServer
from agentapi.tools.mcp import close_sessions
from agentapi.turns import TurnStatus
from orchestrator import Orchestrator
from orchestrator.stack import Child
from orchestrator.stack.processes import free_port

Script = Callable[..., ScriptedProvider]
MODULE = ("-m", "tests.wire.mcp_server")
ROOT = Path(__file__).parents[2]


def over_stdio(**more: Any) -> McpServer:
    more.setdefault("env", {"SHELF_OWNER": "ann"})
    return McpServer("shelf", command=[sys.executable, *MODULE], cwd=ROOT, **more)


def agent_with(*tools: Any) -> Agent:
    return Agent(name="reader", provider="openai", tools=tools)


@pytest.fixture(autouse=True)
async def no_session_is_left() -> AsyncIterator[None]:
    yield
    await close_sessions()


class HttpServer:
    """The server as a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.process = Child(
            "mcp",
            [sys.executable, *MODULE, str(self.port)],
            log=self._folder / "mcp.log",
            env={**os.environ, "PYTHONPATH": str(ROOT), "SHELF_OWNER": "bob"},
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, "the MCP server does not start"
                time.sleep(0.05)
            else:
                return

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[HttpServer]:
    server = HttpServer(tmp_path)
    yield server
    server.process.stop()


@asynccontextmanager
async def told(agent: Agent, script: Script, *wanted: Any) -> AsyncIterator[list[str]]:
    """What the model is told of its calls."""
    script(calls(*wanted), says("Done."))
    result = await agent.run_turn("Go")
    yield [message.content for message in result.messages if message.role == "tool"]


async def test_tools_over_stdio(script: Script) -> None:
    wanted = (
        call("shelf_read", "c1", title="Emma"),
        call("shelf_find", "c2", title="Emma"),
        call("shelf_burn", "c3", title="Emma"),
        call("shelf_read", "c4", name="no such parameter"),
        call("shelf_long", "c5", size=2000),
    )
    async with told(agent_with(over_stdio(max_result_bytes=1000)), script, *wanted) as results:
        read, found, burnt, misfit, long = results
        assert read == "Emma, by ann"
        assert json.loads(found) == {"title": "Emma", "pages": 7}
        assert "Emma does not burn" in burnt
        assert "title" in misfit
        assert long.startswith("x" * 1000)
        assert long.endswith("[cut off: 2000 bytes, the limit is 1000]")


async def test_schemas_are_passed_on_and_tools_can_be_chosen() -> None:
    box = await agent_with(over_stdio(only=["read", "find", "burn"], without=["burn"])).toolbox()
    assert [spec.name for spec in box.specs] == ["shelf_read", "shelf_find"]
    read = box.specs[0]
    assert read.description == "Read a book."
    assert read.parameters["properties"]["title"]["type"] == "string"
    assert read.parameters["required"] == ["title"]


async def test_tools_over_http(script: Script, http_server: HttpServer) -> None:
    shelf = McpServer("web", url=http_server.url, headers={"authorization": "Bearer secret"})
    assert "secret" not in repr(shelf)
    wanted = call("web_read", title="Emma")
    async with told(agent_with(shelf), script, wanted) as results:
        assert results == ["Emma, by bob"]


async def test_a_server_that_was_restarted_is_found_again(
    script: Script, http_server: HttpServer
) -> None:
    agent = agent_with(McpServer("web", url=http_server.url))
    async with told(agent, script, call("web_read", title="Emma")) as results:
        assert results == ["Emma, by bob"]
    http_server.process.kill()
    http_server.start()
    wanted = (call("web_read", "c1", title="Emma"),)
    async with told(agent, script, *wanted) as results:
        # The old session is noticed at the first call, whose outcome is not known then.
        assert results == ["Emma, by bob"] or "outcome is unknown" in results[0]
    async with told(agent, script, *wanted) as results:
        assert results == ["Emma, by bob"]


async def test_a_server_that_dies_in_a_call(script: Script, tmp_path: Path) -> None:
    agent = agent_with(over_stdio())
    async with told(agent, script, call("shelf_crash")) as results:
        assert "its outcome is unknown, and it was not made again" in results[0]
    # What only reads is asked once more.
    wanted = call("shelf_crash_once", marker=str(tmp_path / "marker"))
    async with told(agent, script, wanted) as results:
        assert results == ["recovered"]


async def test_the_list_of_tools_changes(script: Script) -> None:
    agent = agent_with(over_stdio())
    assert (await agent.toolbox()).get("shelf_newcomer") is None
    async with told(agent, script, call("shelf_grow")) as results:
        assert results == ["grown"]
    async with asyncio.timeout(10):
        while (await agent.toolbox()).get("shelf_newcomer") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with told(agent, script, call("shelf_newcomer")) as results:
        assert results == ["new"]


async def test_a_call_that_takes_too_long(script: Script) -> None:
    agent = agent_with(over_stdio(timeout=5))
    async with told(agent, script, call("shelf_slow", seconds=30)) as results:
        assert results == ["the tool did not answer in time"]


async def test_a_server_that_cannot_be_reached_fails_in_passing() -> None:
    agent = agent_with(McpServer("gone", command=["/no/such/program"]))
    with pytest.raises(ProviderUnavailable, match="MCP server 'gone' cannot be used") as first:
        await agent.toolbox()
    assert first.value.retry_after == 1
    with pytest.raises(ProviderUnavailable, match="tried again soon"):
        await agent.toolbox()


def test_a_turn_waits_for_its_server_and_says_who_is_missing(script: Script) -> None:
    script(says("Done."))
    agent = agent_with(McpServer("gone", command=["/no/such/program"]))
    with Orchestrator.eager([agent], provider_max_retries=1) as orchestrator:
        turn = orchestrator.enqueue("reader", "Go")
        with pytest.raises(TurnFailed, match="MCP server 'gone'"):
            turn.result()


def test_it_works_in_workers_and_ends_with_them(script: Script) -> None:
    script(calls(call("shelf_read", "c1", title="Emma")), says("Done."))
    agent = agent_with(over_stdio(requires_approval=["read"]))
    with Orchestrator.eager([agent]) as orchestrator:
        turn = orchestrator.enqueue("reader", "Go")
        assert turn.status() is TurnStatus.PARKED
        turn.approve("c1")
        assert turn.result().messages[2].content == "Emma, by ann"
        mine = psutil.Process().children(recursive=True)
        servers = [child for child in mine if "tests.wire.mcp_server" in child.cmdline()]
        assert len(servers) == 1
    psutil.wait_procs(servers, timeout=10)
    assert not servers[0].is_running()


async def test_names_that_clash() -> None:
    @tool(name="shelf_read")
    def mine() -> str:
        """Read."""
        return ""

    with pytest.raises(InvalidAgent, match="two tools are named 'shelf_read'"):
        await agent_with(mine, over_stdio()).toolbox()
    with pytest.raises(InvalidAgent, match="two servers have one name"):
        agent_with(over_stdio(), over_stdio())


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("a-b", {"url": "http://x"}, "no name of an MCP server"),
        ("a", {}, "either a command or a url"),
        ("a", {"url": "http://x", "command": ["x"]}, "either a command or a url"),
        ("a", {"url": "http://x", "timeout": 0}, "seconds above 0"),
    ],
)
def test_what_is_no_server(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTool, match=said):
        McpServer(name, **more)
