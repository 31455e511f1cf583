"""Forks that run, in memory, and what producers offer for them."""

from __future__ import annotations

import pytest

from agentapi import Agent, tool
from agentapi.errors import InvalidInput
from agentapi.testing import call, calls, says, scripted
from orchestrator import AsyncOrchestrator, Orchestrator

made: list[str] = []


@tool
def look(order_id: str) -> str:
    """Look an order up.

    Args:
        order_id: The order.
    """
    made.append(order_id)
    return f"{order_id} was shipped"


agent = Agent(name="desk", system_prompt="Help.", provider="openai", tools=[look])


def test_steps_that_are_taken_over_do_not_run_again() -> None:
    made.clear()
    with Orchestrator.eager([agent]) as orchestrator:
        with scripted(says("Hello.")):
            orchestrator.enqueue("desk", "I am Ada", conversation_id="user:1")
        with scripted(calls(call("look", "c1", order_id="7")), says("It was shipped.")):
            turn = orchestrator.enqueue("desk", "Where is 7?", conversation_id="user:1")
        with scripted(says("Elle est partie.")) as model:
            forked = turn.fork(step=2, message="Where is 7? In French!", idempotency_key="k")
            again = turn.fork(step=2, message="ignored", idempotency_key="k")
        assert forked.result().text == "Elle est partie."
        assert again.turn_id == forked.turn_id
        assert made == ["7"]
        [request] = model.requests
        assert [message.content for message in request.messages] == [
            "I am Ada",
            "Hello.",
            "Where is 7? In French!",
            "",
            "7 was shipped",
        ]
        said = [m["content"] for m in orchestrator.history(forked.conversation_id)]
        assert said[2:] == ["Where is 7? In French!", "", "7 was shipped", "Elle est partie."]
        assert len(orchestrator.history("user:1")) == 6
        assert forked.timeline().forked_from == forked.info().forked_from
        # A fork can be forked, also from the steps that it has of its own.
        with scripted(says("Again.")):
            assert forked.fork().result().text == "Again."
        for wrong in ({"by": ""}, {"idempotency_key": "x" * 600}, {"message": ""}):
            with pytest.raises(InvalidInput):
                turn.fork(**wrong)  # type: ignore[arg-type]


async def test_the_asyncio_producer_forks_too() -> None:
    async with AsyncOrchestrator.eager([agent]) as orchestrator:
        with scripted(says("one"), says("two")):
            turn = await orchestrator.enqueue("desk", "Hi")
            forked = await turn.fork(by="kim")
        assert (await forked.result(timeout=10)).text == "two"
        timeline = await forked.timeline()
        assert timeline.forked_from is not None
        assert timeline.forked_from.by == "kim"
