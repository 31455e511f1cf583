"""Agents of the soak, and a gauge in each worker process that counts the tasks of its loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agentapi import Agent, Delegate, delegate, register_provider, tool
from agentapi.conversation.compaction import Compaction
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.base import StreamPart
from agentapi.providers.offline import OfflineProvider

_GAUGES = Path(os.environ["SOAK_GAUGES"])
_gauge: asyncio.Task[None] | None = None
_gauge_of = 0


async def _measure() -> None:
    """Write down how many tasks the loop has, once a second, as long as the process lives."""
    while True:
        tasks = len(asyncio.all_tasks())
        new = _GAUGES / f"{os.getpid()}.new"
        new.write_text(str(tasks))
        new.rename(_GAUGES / str(os.getpid()))
        await asyncio.sleep(1)


def _start_gauge() -> None:
    global _gauge, _gauge_of
    # By process: one that was forked from a worker has a loop and a gauge of its own.
    if _gauge_of != os.getpid():
        _gauge_of = os.getpid()
        _gauge = asyncio.get_running_loop().create_task(_measure())


class SoakProvider(OfflineProvider):
    """The offline provider, with a little delay, in a process that is measured."""

    name = "soak"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        _start_gauge()
        return await super().complete(request)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        async for part in super().stream(request):
            yield part


register_provider("soak", lambda: SoakProvider(delay=0.01, chunk_delay=0.005))


@tool(idempotent=True)
async def nap(seconds: float) -> str:
    """Sleep."""
    await asyncio.sleep(seconds)
    return "rested"


@tool
def think(seconds: float) -> str:
    """Sleep in a thread."""
    time.sleep(seconds)
    return "thought"


@tool
def broken() -> str:
    """Raise."""
    raise RuntimeError("out of paper")


@tool
def large(kilobytes: int) -> str:
    """A long result."""
    return "x" * kilobytes * 1024


@tool(requires_approval=True)
def sign(paper: str) -> str:
    """Sign."""
    return f"signed {paper}"


@tool
def fan_out(messages: list[str]) -> list[Delegate]:
    """Ask the agent `soak` each of these."""
    return [delegate("soak", message, timeout=60) for message in messages]


soak = Agent(
    name="soak",
    provider="soak",
    tools=[nap, think, broken, large, sign, fan_out],
    compact=Compaction(keep=10, after=10),
)
