"""Tools of a real MCP server process, over stdio and over streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import Client

from agentapi import Agent, tool
from agentapi.errors import (
    InvalidAgent,
    InvalidTool,
    ProviderUnavailable,
    ToolServerUnavailable,
    TurnFailed,
)
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.tools import McpServer
from agentapi.tools.mcp import session as mcp_session
from agentapi.tools.mcp.server import close_sessions
from agentapi.turns import TurnStatus
from orchestrator import Orchestrator
from tests.fakes.mcp_process import MODULE, ROOT, McpProcess

Script = Callable[..., ScriptedProvider]


def over_stdio(**more: Any) -> McpServer:
    more.setdefault("env", {"SHELF_OWNER": "ann"})
    return McpServer("shelf", command=[sys.executable, *MODULE], cwd=ROOT, **more)


def servers() -> list[psutil.Process]:
    """Those that this process started over stdio."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if MODULE[1] in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def agent_with(*tools: Any) -> Agent:
    return Agent(name="reader", provider="openai", tools=tools)


@pytest.fixture(autouse=True)
async def no_session_is_left(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    # A server imports for a second, or for many on a busy machine.
    monkeypatch.setattr(mcp_session, "CONNECT_TIMEOUT", 90.0)
    yield
    await close_sessions()


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[McpProcess]:
    server = McpProcess(tmp_path)
    yield server
    server.kill()


@pytest.fixture(params=["auto", "legacy"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The newest protocol, and that of servers with sessions, before 2026."""
    monkeypatch.setattr(mcp_session, "Client", partial(Client, mode=request.param))
    return str(request.param)


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


async def test_tools_over_http(script: Script, http_server: McpProcess) -> None:
    shelf = McpServer("web", url=http_server.url, headers={"authorization": "Bearer secret"})
    assert "secret" not in repr(shelf)
    wanted = call("web_read", title="Emma")
    async with told(agent_with(shelf), script, wanted) as results:
        assert results == ["Emma, by bob"]


@pytest.mark.usefixtures("protocol")
async def test_a_server_that_was_restarted_is_found_again(
    script: Script, http_server: McpProcess
) -> None:
    agent = agent_with(McpServer("web", url=http_server.url))
    for _ in range(2):
        async with told(agent, script, call("web_read", title="Emma")) as results:
            assert results == ["Emma, by bob"]
        http_server.kill()
        http_server.start()
    # No call is lost: the old session is noticed before, or the server knows it no more.
    async with told(agent, script, call("web_read", title="Emma")) as results:
        assert results == ["Emma, by bob"]


async def test_a_session_that_broke_while_idle_is_made_again(script: Script) -> None:
    server = over_stdio()
    agent = agent_with(server)
    await agent.toolbox()
    for process in servers():
        process.kill()
    # The end is noticed, not waited for: nobody asks meanwhile.
    session = mcp_session.sessions.of(server.endpoint)
    async with asyncio.timeout(60):
        while session._tools is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with told(agent, script, call("shelf_read", title="Emma")) as results:
        assert results == ["Emma, by ann"]
    assert session._remembers


async def test_a_turn_that_is_cancelled_while_connecting_leaves_no_server() -> None:
    agent = agent_with(over_stdio())
    turn = asyncio.create_task(agent.toolbox())
    async with asyncio.timeout(60):
        while not servers():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    [abandoned] = servers()
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await agent.toolbox()
    await asyncio.to_thread(abandoned.wait, 60)
    assert len(servers()) == 1


async def test_a_server_that_dies_in_a_call(script: Script, tmp_path: Path) -> None:
    agent = agent_with(over_stdio())
    async with told(agent, script, call("shelf_crash")) as results:
        assert "its outcome is unknown, and it was not repeated" in results[0]
    # What only reads is asked once more.
    wanted = call("shelf_crash_once", marker=str(tmp_path / "marker"))
    async with told(agent, script, wanted) as results:
        assert results == ["recovered"]


async def test_the_list_of_tools_changes(script: Script) -> None:
    agent = agent_with(over_stdio())
    assert (await agent.toolbox()).get("shelf_newcomer") is None
    async with told(agent, script, call("shelf_grow")) as results:
        assert results == ["grown"]
    async with asyncio.timeout(60):
        while (await agent.toolbox()).get("shelf_newcomer") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with told(agent, script, call("shelf_newcomer")) as results:
        assert results == ["new"]


async def test_a_call_that_takes_too_long(script: Script) -> None:
    agent = agent_with(over_stdio(timeout=5))
    async with told(agent, script, call("shelf_slow", seconds=30)) as results:
        assert results == ["the tool did not answer in time: its outcome is unknown"]


async def test_a_server_that_cannot_be_reached_fails_in_passing() -> None:
    server = McpServer("gone", command=["/no/such/program"])
    agent = agent_with(server)
    with pytest.raises(ToolServerUnavailable, match="MCP server 'gone' cannot be used") as first:
        await agent.toolbox()
    assert first.value.retry_after == 1
    # A server of tools is not a model provider, but a turn waits for it under the same code.
    assert (first.value.server, first.value.provider) == ("gone", "")
    assert first.value.code == ProviderUnavailable.code
    # A second may pass on a busy machine before it is asked again.
    mcp_session.sessions.of(server.endpoint)._not_before += 60
    with pytest.raises(ToolServerUnavailable, match="the next attempt is soon"):
        await agent.toolbox()


@pytest.mark.parametrize("status", [401, 503])
async def test_a_server_that_refuses_is_told_without_its_keys(status: int) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        server = McpServer("crm", url=f"http://ann:secret@127.0.0.1:{port}/mcp?key=secret")
        assert repr(server) == f"McpServer('crm', 'http://127.0.0.1:{port}/mcp')"
        with pytest.raises(ToolServerUnavailable, match=rf"'crm' cannot .*HTTP {status}") as caught:
            await server.tools()
    assert caught.value.status == status
    assert "secret" not in str(caught.value)


async def test_a_server_that_ends_at_once_is_told_with_the_cause() -> None:
    server = McpServer("exits", command=[sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ToolServerUnavailable, match="'exits' cannot be used: Connection closed"):
        await server.tools()


def test_a_turn_waits_for_its_server_and_says_who_is_missing(script: Script) -> None:
    script()
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
        [server] = servers()
    server.wait(timeout=60)


async def test_names_that_clash() -> None:
    @tool(name="shelf_read")
    def mine() -> str:
        """Read."""
        return ""

    with pytest.raises(InvalidAgent, match="two tools are named 'shelf_read'"):
        await agent_with(mine, over_stdio()).toolbox()
    with pytest.raises(InvalidAgent, match="two servers have the same name"):
        agent_with(over_stdio(), over_stdio())


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("a-b", {"url": "http://x"}, "not a valid MCP server name"),
        ("a", {}, "either a command or a url"),
        ("a", {"url": "http://x", "command": ["x"]}, "either a command or a url"),
        ("a", {"url": "http://x", "timeout": 0}, "seconds above 0"),
        ("a", {"url": "localhost:8000/mcp"}, "not a valid http or https URL"),
        ("a", {"url": "http://[x/"}, "not a valid http or https URL"),
        ("a", {"command": "python server.py"}, "command is a string, expected a list"),
        ("a", {"url": "http://x", "only": "read"}, "only is a string"),
        ("a", {"url": "http://x", "requires_approval": "burn"}, "requires_approval is a string"),
    ],
)
def test_what_is_no_server(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTool, match=said):
        McpServer(name, **more)
