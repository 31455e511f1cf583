"""Answers of an MCP server over HTTP: what it is, its list of tools, results of calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import Agent
from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.providers import FinishReason, ModelResponse
from agentapi.tools import McpServer
from agentapi.tools.base import BaseTool
from agentapi.tools.mcp.session import sessions
from tests.fuzz.answers import Answer, Manner, fine, manners
from tests.fuzz.mutations import Mutation, mutations
from tests.fuzz.rig import Fate, Rig
from tests.fuzz.targets.tools import OddCalls
from tests.fuzz.values import CANARY

_INFO: Final = {"io.modelcontextprotocol/serverInfo": {"name": "shelf", "version": "1"}}
_SCHEMA: Final = {
    "type": "object",
    "properties": {"title": {"title": "Title", "type": "string"}},
    "required": ["title"],
}
_TOOL: Final = {
    "name": "read",
    "description": f"Read a book, {CANARY}.",
    "inputSchema": _SCHEMA,
    "outputSchema": {"type": "object", "properties": {"result": {"type": "string"}}},
    "annotations": {"readOnlyHint": True},
}

RESULTS: Final[dict[str, dict[str, Any]]] = {
    "server/discover": {
        "cacheScope": "private",
        "capabilities": {"tools": {"listChanged": True}},
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "ttlMs": 0,
        "_meta": _INFO,
    },
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": "shelf", "version": "1"},
    },
    "tools/list": {
        "cacheScope": "private",
        "resultType": "complete",
        "ttlMs": 0,
        "tools": [_TOOL, {**_TOOL, "name": "burn"}],
    },
    "tools/call": {
        "content": [
            {"type": "text", "text": f"{CANARY} read"},
            {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            {"type": "resource_link", "uri": "file:///a", "name": "a"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": CANARY}},
        ],
        "isError": False,
        "resultType": "complete",
        "structuredContent": {"result": CANARY},
        "_meta": _INFO,
    },
}
_UNKNOWN: Final = {"code": -32601, "message": f"Method not found, {CANARY}"}
_FAULT: Final = {"code": -32000, "message": f"{CANARY} is broken", "data": {"a": [CANARY]}}

CLEAR: Final = frozenset({"provider_unavailable", "invalid_agent"})


@dataclass(frozen=True, kw_only=True, slots=True)
class McpAnswer:
    """One method of a server is answered oddly; a server may be of an older kind."""

    method: str
    fails: bool
    mutation: Mutation
    stream: bool
    manner: Manner
    old: bool


class FakeServer:
    """Speaks MCP, the newest and the one before; what comes after ``/odd`` does so oddly."""

    def __init__(self) -> None:
        self.odd: McpAnswer | None = None

    def __call__(self, method: str, path: str, sent: Any) -> Answer:
        """See `odd_server`."""
        if method != "POST" or not isinstance(sent, dict):
            return Answer(body=b"", manner=Manner(status=405 if method == "GET" else 200))
        odd = self.odd if path.startswith("/odd") else None
        if "id" not in sent:
            return Answer(body=b"", manner=Manner(status=202))
        asked = str(sent.get("method"))
        document = {"jsonrpc": "2.0", "id": sent["id"], **self._outcome(asked, sent, odd)}
        if odd is None or odd.method != asked:
            return fine(document)
        if odd.fails:
            document = {"jsonrpc": "2.0", "id": sent["id"], "error": _FAULT}
        body = odd.mutation.text(document)
        if odd.stream:
            body = b"event: message\r\ndata: " + body + b"\r\n\r\n"
        return Answer(body=body, manner=odd.manner)

    def _outcome(self, asked: str, sent: dict[str, Any], odd: McpAnswer | None) -> dict[str, Any]:
        old = odd is not None and odd.old
        if asked not in RESULTS or (old and asked == "server/discover"):
            return {"error": _UNKNOWN}
        if asked == "tools/call" and odd is None:
            said = f"{sent['params']['arguments']['title']}, by nobody"
            return {"result": {**RESULTS[asked], "content": [{"type": "text", "text": said}]}}
        return {"result": RESULTS[asked]}


class FreshServer:
    """A source of tools with a new session for each example."""

    name = "odd"

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self.renew()

    def renew(self) -> None:
        """Take another server, as far as sessions know."""
        url = f"{self._url}/odd/{next(self._numbers)}"
        self._server = McpServer("odd", url=url, timeout=2, max_result_bytes=5_000)

    async def tools(self) -> Sequence[BaseTool]:
        """See `ToolSource.tools`."""
        return await self._server.tools()

    async def close(self) -> None:
        """End the session of the running loop."""
        sessions.hold(self, [self._server.endpoint])
        await sessions.release(self)


def agents(url: str, fresh: FreshServer) -> list[Agent]:
    """The victim, and the innocent with a server of its own."""
    shelf = McpServer("fine", url=f"{url}/fine", timeout=20)
    return [
        Agent(name="odd-mcp", provider="odd-calls", tools=[fresh], max_steps=4),
        Agent(name="fine-mcp", provider="offline", tools=[shelf]),
    ]


class McpTarget:
    """See the module."""

    name = "mcp"
    examples = 40

    def __init__(self, rig: Rig, server: FakeServer, fresh: FreshServer) -> None:
        self._rig = rig
        self._server = server
        self._fresh = fresh
        self._numbers = itertools.count()

    def strategy(self) -> st.SearchStrategy[McpAnswer]:
        """See `Target.strategy`."""
        odd = st.one_of(mutations(), mutations(), st.just(Mutation()))
        made = st.builds(
            McpAnswer,
            method=st.sampled_from(sorted(RESULTS)),
            fails=st.sampled_from((False, False, True)),
            mutation=odd,
            stream=st.just(False),
            manner=manners("application/json"),
            old=st.booleans(),
        )
        streamed = st.builds(
            McpAnswer,
            method=st.sampled_from(sorted(RESULTS)),
            fails=st.just(False),
            mutation=odd,
            stream=st.just(True),
            manner=manners("text/event-stream"),
            old=st.just(True),
        )
        return st.one_of(made, streamed)

    def attack(self, example: McpAnswer) -> None:
        """See `Target.attack`."""
        self._fresh.renew()
        self._server.odd = example
        message = f"{CANARY} {next(self._numbers)}"
        calls = tuple(
            ToolCall(id=f"c{n}", name=name, arguments={"title": CANARY})
            for n, name in enumerate(("odd_read", "odd_burn"))
        )
        OddCalls.answers[message] = ModelResponse(
            message=AssistantMessage(content="", tool_calls=calls),
            usage=Usage(),
            finish=FinishReason.TOOL_CALLS,
        )
        try:
            with self._rig.innocent("fine-mcp"):
                fate = self._rig.run("odd-mcp", message)
        finally:
            self._rig.on_loop(self._fresh.close())
        self._judge(fate)
        self._rig.read(fate)
        self._rig.check()

    def _judge(self, fate: Fate) -> None:
        if fate.completed:
            history = self._rig.producer.history(fate.conversation_id)
            results = [m["content"] for m in history if m["role"] == "tool"]
            assert len(results) == 2
            assert all(len(result) < 6_000 for result in results)
            return
        assert fate.code in CLEAR, f"not a clear error: {fate.code} {fate.message[:300]}"
        assert 10 < len(fate.message) <= 4_000, f"an error of {len(fate.message)} characters"

    def settle(self) -> None:
        """See `Target.settle`."""
        self._rig.settle()
