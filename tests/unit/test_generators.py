"""Tools that give generators, and errors that are made for generators."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agentapi import Agent, Delegate, ToolContext, delegate, tool
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.tools.delegation import Delegation

CONTEXT = ToolContext(conversation_id="c", turn_id="t", call_id="k", user_id="u", tenant_id="n")
Script = Callable[..., ScriptedProvider]


async def numbers(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number


@tool
def some() -> Iterator[int]:
    """Give numbers."""
    yield from range(3)


@tool
async def some_later() -> AsyncIterator[int]:
    """Give numbers."""
    async for number in numbers(3):
        yield number


@tool
async def some_inside() -> dict[str, Any]:
    """Give numbers."""
    return {"numbers": [(n for n in range(3))]}


@tool
def turns() -> Iterator[Delegate]:
    """Ask two agents."""
    yield delegate("a", "one")
    yield delegate("b", "two")


@pytest.mark.parametrize(
    ("made", "expected"),
    [(some, "[0,1,2]"), (some_later, "[0,1,2]"), (some_inside, '{"numbers":[[0,1,2]]}')],
)
async def test_generators_are_lists(made: Any, expected: str) -> None:
    assert await made.invoke({}, CONTEXT) == expected


async def test_a_generator_of_turns() -> None:
    found = await turns.invoke({}, CONTEXT)
    assert isinstance(found, Delegation)
    assert [turn.agent for turn in found.turns] == ["a", "b"]


@tool
async def endless() -> Iterator[int]:
    """Never end."""
    return itertools.count()


@tool
async def endless_inside() -> dict[str, Any]:
    """Never end."""
    return {"numbers": itertools.count()}


@tool
async def endless_later() -> AsyncIterator[int]:
    """Never end, and wait for nothing."""
    for number in itertools.count():
        yield number


@pytest.mark.parametrize("made", [endless, endless_inside, endless_later])
async def test_a_generator_without_an_end_holds_up_nobody(made: Any) -> None:
    with pytest.raises(ValueError, match="more than 100000 items"):
        await made.invoke({}, CONTEXT)


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    "error",
    [GeneratorExit("g"), StopIteration(Mute()), StopAsyncIteration("a"), asyncio.CancelledError()],
)
@pytest.mark.parametrize("how", ["thread", "loop"])
async def test_errors_that_end_coroutines_are_told(
    script: Script, error: BaseException, how: str
) -> None:
    @tool
    def in_thread() -> str:
        """Fail."""
        raise error

    @tool
    async def on_loop() -> str:
        """Fail."""
        raise error

    script(calls(call("in_thread" if how == "thread" else "on_loop")), says("Done."))
    agent = Agent(name="a", provider="openai", tools=[in_thread, on_loop])
    async with asyncio.timeout(60):
        result = await agent.run_turn("Go")
    told = result.messages[2].content
    assert type(error).__name__ in told or "StopIteration" in told
