"""Agents for worker processes under test."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from typing import Any

from pydantic import BaseModel

from agentapi import Agent, Delegate, ToolContext, delegate, register_provider, tool
from agentapi.errors import ProviderUnavailable
from agentapi.providers.offline import OfflineProvider


class SlowProvider(OfflineProvider):
    """Streams visibly."""

    name = "slow"


register_provider("slow", lambda: SlowProvider(chunk_delay=0.1))


@tool
async def nap(seconds: float) -> str:
    """Sleep."""
    await asyncio.sleep(seconds)
    return "rested"


@tool(idempotent=True)
async def count_up(seconds: float) -> str:
    """Sleep; may be repeated."""
    await asyncio.sleep(seconds)
    return "counted"


@tool(idempotent=True)
async def hold(file: str) -> str:
    """Wait until a file exists; may be repeated. See `tests.gate`."""
    while not os.access(file, os.F_OK):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.05)
    return "released"


@tool
async def block(seconds: float) -> str:
    """Do what no async tool should: hold the event loop."""
    time.sleep(seconds)  # noqa: ASYNC251
    return "unblocked"


@tool(idempotent=True)
async def die(how: str) -> str:
    """Take the whole process along."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crashed":
        ctypes.string_at(0)
    os._exit(3)


@tool
def broken() -> str:
    """Raise."""
    raise RuntimeError("out of paper")


@tool
def echo(text: str) -> str:
    """Say it back."""
    return text


@tool(requires_approval=True)
def sign(paper: str) -> str:
    """Sign."""
    return f"signed {paper}"


@tool
def fan_out(messages: list[str]) -> list[Delegate]:
    """Ask the agent `tools` each of these."""
    return [delegate("tools", message, timeout=60) for message in messages]


tools = Agent(
    name="tools",
    provider="offline",
    tools=[nap, count_up, hold, die, block, broken, echo, sign, fan_out],
)
slow = Agent(name="slow", provider="slow")


class Shopper(BaseModel):
    """A context."""

    name: str = "nobody"
    age: int = 0


@tool
def who(context: ToolContext[Shopper]) -> str:
    """Say who asks."""
    return f"{context.context.name} {context.metadata}"


shop = Agent(name="shop", provider="offline", tools=[who], context_type=Shopper)
keyless = Agent(name="keyless", provider="openai")


terse = Agent(name="terse", provider="slow", options={"max_tokens": 4})
thorough = Agent(
    name="thorough", provider="slow", options={"max_tokens": 4}, on_incomplete="continue"
)
whole = Agent(name="whole", provider="slow", options={"max_tokens": 4}, on_incomplete="fail")


class FaultyProvider(OfflineProvider):
    """Has a fault of its own, whose text quotes what was said."""

    name = "faulty"

    async def complete(self, request: Any) -> Any:
        raise ZeroDivisionError(str(request.messages))


class BusyProvider(OfflineProvider):
    """Wants to be asked again in a minute."""

    name = "busy"

    async def complete(self, request: Any) -> Any:
        raise ProviderUnavailable("busy", provider="busy", status=429, retry_after=60)


register_provider("faulty", FaultyProvider)
register_provider("busy", BusyProvider)

faulty = Agent(name="faulty", provider="faulty")
busy = Agent(name="busy", provider="busy")
