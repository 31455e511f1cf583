"""Agents whose model and tools write each execution into a ledger, as it begins.

The ledger is one file for all processes of a cell; a line is one write to a descriptor opened for
appending, so that a killed process leaves whole lines.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from agentapi import (
    Agent,
    AssistantMessage,
    Compaction,
    Delegate,
    Hooks,
    ToolContext,
    Turn,
    TurnContext,
    UserMessage,
    delegate,
    register_provider,
    tool,
)
from agentapi.errors import ProviderMisconfigured, ProviderUnavailable
from agentapi.providers import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
)
from agentapi.providers.offline import OfflineProvider
from agentapi.tools import BaseTool
from orchestrator import Orchestrator

LEDGER = "FAULTS_LEDGER"
"""The variable with the file's path."""


@functools.cache
def _ledger() -> int:
    return os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(**fields: Any) -> None:
    os.write(_ledger(), json.dumps({**fields, "pid": os.getpid()}).encode() + b"\n")


class LedgerProvider(OfflineProvider):
    """Answers like the offline provider, and notes which step of which turn it was asked for."""

    name = "ledger"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        users = [
            (number, message.turn_id)
            for number, message in enumerate(request.messages)
            if isinstance(message, UserMessage)
        ]
        turn = users[-1][1]
        # The turn's own message: those that steer it are among its steps.
        first = next(number for number, asked in users if asked == turn)
        note(kind="model", turn=turn, step=len(request.messages) - first - 1)
        await asyncio.sleep(0)
        return await super().complete(request)


class FlakyProvider(LedgerProvider):
    """Is away the first time that it is asked for a turn, and breaks off the second time."""

    name = "flaky"

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        asked = next(m.turn_id for m in reversed(request.messages) if isinstance(m, UserMessage))
        if _first_time(f"away {asked}"):
            raise ProviderUnavailable("busy", provider=self.name, status=503, retry_after=0.1)
        if _first_time(f"broke off {asked}"):
            yield TextDelta(text="You")
            raise ProviderUnavailable("gone", provider=self.name, status=503, retry_after=0.01)
        async for part in super().stream(request):
            yield part


def _first_time(what: str) -> bool:
    """Whether no process of the cell has asked this before."""
    try:
        os.close(os.open(f"{os.environ[LEDGER]} {what}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class RefusingProvider(LedgerProvider):
    """Never answers: another one does."""

    name = "refusing"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        raise ProviderMisconfigured("no", provider=self.name, status=401)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        yield TextDelta(text="N")
        await self.complete(request)


class PrimProvider(LedgerProvider):
    """Refuses to answer."""

    name = "prim"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        response = await super().complete(request)
        message = AssistantMessage(content="I will not.")
        return replace(response, message=message, finish=FinishReason.REFUSAL)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        response = await self.complete(request)
        yield TextDelta(text=response.message.content, refusal=True)
        yield response


register_provider("ledger", LedgerProvider)
register_provider("flaky", FlakyProvider)
register_provider("refusing", RefusingProvider)
register_provider("prim", PrimProvider)


@tool(idempotent=True)
def look(what: str, context: ToolContext) -> str:
    """Look something up; may be repeated."""
    note(kind="look", turn=context.turn_id, call=context.call_id, attempt=context.attempt)
    return f"{what} is there"


@tool
async def charge(amount: int, context: ToolContext) -> AsyncIterator[str]:
    """Charge an amount; must not be repeated."""
    note(kind="charge", turn=context.turn_id, call=context.call_id, attempt=context.attempt)
    await asyncio.sleep(0)
    yield f"charged {amount}"


def is_paper(paper: str) -> bool:
    """Whether somebody must be asked; a plain function runs in a tool thread."""
    return bool(paper)


@tool(requires_approval=is_paper)
async def sign(paper: str, context: ToolContext) -> str:
    """Sign; must not be repeated."""
    note(kind="sign", turn=context.turn_id, call=context.call_id, attempt=context.attempt)
    return f"signed {paper}"


@tool(idempotent=True)
def nap(seconds: float, context: ToolContext) -> Awaitable[Iterator[str]]:
    """Sleep; may be repeated."""
    note(kind="nap", turn=context.turn_id, call=context.call_id, attempt=context.attempt)
    return asyncio.sleep(seconds, iter(["rested"]))


@functools.cache
def _producer() -> Orchestrator:
    return Orchestrator()


@tool(idempotent=True)
def recall(turn: str, context: ToolContext) -> str:
    """Read the reply of an earlier turn; may be repeated."""
    run = {"turn": context.turn_id, "call": context.call_id, "attempt": context.attempt}
    note(kind="recall", **run)
    said = _producer().turn(turn).result().text
    note(kind="recalled", turn=context.turn_id, of=turn, text=said)
    return said


@tool
def ask_helper(question: str) -> Delegate:
    """Ask the helper."""
    return delegate("helper", question)


class Watching(Hooks):
    """Hooks that change nothing: one runs on the event loop, one in a tool thread."""

    async def on_turn_start(self, context: ToolContext, message: str) -> None:
        await asyncio.sleep(0)

    def on_turn_end(self, context: ToolContext, result: Any) -> None:
        """Look."""

    async def on_turn_committed(self, turn: Turn, end_id: str) -> None:
        note(kind="told", turn=turn.turn_id, end=end_id)


def lead_prompt(turn: TurnContext) -> str:
    """Runs in a tool thread."""
    return f"You lead. It is {turn.time:%H:%M}."


async def lead_tools(turn: TurnContext) -> Sequence[BaseTool]:
    """Runs on the event loop."""
    await asyncio.sleep(0)
    return [look, charge, ask_helper, sign]


class Rest(BaseModel):
    """What the agents `beside` and `prim` are to reply."""

    text: str


AGENTS = [
    Agent(
        name="lead",
        provider="ledger",
        system_prompt=lead_prompt,
        tools=lead_tools,
        hooks=[Watching()],
        compact=Compaction(keep=2, after=2),
    ),
    Agent(name="helper", provider=["refusing", "ledger"]),
    Agent(name="after", provider="flaky"),
    Agent(name="beside", provider=["refusing", "ledger"], tools=[nap], output_type=Rest),
    Agent(name="painter", provider="ledger"),
    Agent(name="reader", provider="ledger", tools=[recall]),
    Agent(name="prim", provider="prim", output_type=Rest),
    Agent(name="doomed", provider="ledger", tools=[nap], max_steps=1, hooks=[Watching()]),
]
