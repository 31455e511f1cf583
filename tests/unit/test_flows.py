"""Gather and chain, in eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentapi import Agent
from agentapi.errors import InvalidInput, ProviderRejected, TurnFailed, UnknownAgent
from agentapi.testing import ScriptedProvider, says
from orchestrator import Ask, AsyncOrchestrator, Orchestrator

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]

NO = ProviderRejected("not that", provider="openai")


def agents() -> list[Agent]:
    return [Agent(name=name, provider="openai") for name in ("research", "edit")]


def test_gather_replies_in_order(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("one"), says("two"))
    research, edit = agents()
    orchestrator = eager_orchestrator([research, edit])
    turn = orchestrator.gather(
        [("research", "a"), Ask(agent="edit", message="b")], tenant_id="acme", user_id="ann"
    )
    assert turn.replies(timeout=5) == ["one", "two"]
    assert [request.messages[-1].content for request in model.requests] == ["a", "b"]
    assert turn.result().usage.total_tokens > 0


def test_one_of_them_fails(script: Script, eager_orchestrator: Eager) -> None:
    script(says("one"), NO)
    turn = eager_orchestrator(agents()).gather([("research", "a"), ("edit", "b")])
    with pytest.raises(TurnFailed, match=r"gathered turn 1.*not that"):
        turn.replies()
    first, second = turn.replies(return_exceptions=True)
    assert first == "one"
    assert isinstance(second, TurnFailed)


def test_each_link_gets_the_reply_before(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("facts"), says("text"), says("short"))
    research, edit = agents()
    turn = eager_orchestrator([research, edit]).chain(
        [(research, "Cats?"), edit, ("edit", "Shorten: {reply}")]
    )
    assert turn.result().text == "short"
    told = [request.messages[-1].content for request in model.requests]
    assert told == ["Cats?", "facts", "Shorten: text"]


def test_a_broken_chain_says_where(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("facts"), NO)
    turn = eager_orchestrator(agents()).chain([("research", "Cats?"), "edit"])
    with pytest.raises(TurnFailed, match=r"chain_broken.*link 2 of 2, agent 'edit'.*not that"):
        turn.result()
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("turns", "error", "said"),
    [
        ([], InvalidInput, "expected 1 to 3"),
        ([("edit", "x")] * 4, InvalidInput, "AGENTAPI_MAX_CHILDREN"),
        (["edit"], InvalidInput, "no message"),
        ([("edit", " ")], InvalidInput, "no message"),
        ([("ghost", "x")], UnknownAgent, "ghost"),
        ([7], InvalidInput, "int is not a turn"),
    ],
)
def test_what_cannot_be_gathered(
    eager_orchestrator: Eager, turns: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        eager_orchestrator(agents(), max_children=3).gather(turns)


def test_what_is_no_chain(eager_orchestrator: Eager) -> None:
    with pytest.raises(InvalidInput, match="only the later links"):
        eager_orchestrator(agents()).chain(["edit", "edit"])
    with pytest.raises(InvalidInput, match="expected 1 to 100"):
        eager_orchestrator(agents()).chain([("edit", "x")] * 101)


async def test_both_for_asyncio(script: Script) -> None:
    script(says("one"), says("two"), says("three"))
    async with AsyncOrchestrator.eager(agents()) as orchestrator:
        gathered = await orchestrator.gather([("research", "a")])
        assert await gathered.replies(timeout=5) == ["one"]
        chained = await orchestrator.chain([("research", "a"), "edit"])
        assert (await chained.result(timeout=5)).text == "three"
