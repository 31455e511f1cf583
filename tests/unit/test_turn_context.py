"""What prompts, tools, hooks and child turns learn about a turn."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from agentapi import (
    Agent,
    Hooks,
    InvalidContext,
    PromptFailed,
    Tool,
    ToolContext,
    ToolsFailed,
    TurnContext,
    TurnFailed,
    TurnVetoed,
    handoff,
    tool,
)
from agentapi.agents.functions import FunctionCaller
from agentapi.errors import ProviderUnavailable
from agentapi.testing import ScriptedProvider, assert_failed, call, calls, says
from agentapi.tools.threads import limit_tool_threads, run_in_tool_thread
from agentapi.turns.context import GATEWAY_LABELS
from orchestrator import AsyncOrchestrator, Orchestrator, TurnRequest

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]


class Shopper(BaseModel):
    """A context."""

    name: str
    plan: str = "free"


class Order(BaseModel):
    """Another one."""

    number: int = 0


ANN = Shopper(name="Ann", plan="gold")


def greet(turn: TurnContext[Shopper]) -> str:
    return f"You help {turn.context.name} ({turn.context.plan})."


async def greet_later(turn: TurnContext[Shopper]) -> str:
    await asyncio.sleep(0)
    return greet(turn)


@tool
def plan(context: ToolContext[Shopper]) -> str:
    """Tell the plan."""
    return f"{context.context.plan} {context.metadata.get('source')}"


@pytest.mark.parametrize("prompt", [greet, greet_later])
def test_a_prompt_is_made_once_for_each_turn(
    script: Script, eager_orchestrator: Eager, prompt: Any
) -> None:
    model = script(calls(call("plan")), says("Done."), says("Hi Bob."))
    agent = Agent(system_prompt=prompt, tools=[plan], context_type=Shopper)
    orchestrator = eager_orchestrator([agent])
    turn = orchestrator.enqueue("agent", "Go", context=ANN, metadata={"source": "web"})
    assert turn.result().messages[2].content == "gold web"
    assert turn.info().context == {"name": "Ann", "plan": "gold"}
    assert orchestrator.enqueue(agent, "Go", context={"name": "Bob"}).result().text == "Hi Bob."
    assert [request.system_prompt for request in model.requests] == [
        "You help Ann (gold).",
        "You help Ann (gold).",
        "You help Bob (free).",
    ]


def test_a_function_learns_about_the_turn(script: Script, eager_orchestrator: Eager) -> None:
    script(says("Hi."))
    seen: list[TurnContext] = []
    threads: list[str] = []

    def prompt(turn: TurnContext) -> str:
        seen.append(turn)
        threads.append(threading.current_thread().name)
        return "x"

    turn = eager_orchestrator([Agent(name="a", system_prompt=prompt)]).enqueue(
        "a",
        "Go",
        conversation_id="c",
        user_id="ann",
        tenant_id="acme",
        metadata={"source": "web", GATEWAY_LABELS: {"digest": "x"}},
        context={"shop": 7},
    )
    turn.result()
    [found] = seen
    assert (found.conversation_id, found.turn_id, found.agent) == ("c", turn.turn_id, "a")
    assert (found.user_id, found.tenant_id, found.attempt) == ("ann", "acme", 1)
    assert (found.metadata, found.context) == ({"source": "web"}, {"shop": 7})
    assert found.time.tzinfo is UTC
    assert abs((datetime.now(UTC) - found.time).total_seconds()) < 60
    # Never on the event loop, which it could block.
    assert threads[0].startswith("agentapi-tool")


def test_what_a_function_changes_stays_with_it(script: Script, eager_orchestrator: Eager) -> None:
    script(says("Hi."))

    def prompt(turn: TurnContext[dict[str, Any]]) -> str:
        turn.context["tags"].append("b")
        turn.metadata["more"].append(1)
        return "x"

    agent = Agent(system_prompt=prompt)
    turn = eager_orchestrator([agent]).enqueue(
        "agent", "Go", context={"tags": []}, metadata={"more": []}
    )
    turn.result()
    assert (turn.info().context, turn.info().metadata) == ({"tags": []}, {"more": []})


def raises(turn: TurnContext) -> str:
    raise ZeroDivisionError("secret words")


async def raises_later(turn: TurnContext) -> str:
    raise ZeroDivisionError("secret words")


def leaves(turn: TurnContext) -> str:
    raise SystemExit(3)


async def cancels(turn: TurnContext) -> str:
    raise asyncio.CancelledError


def returns_a_number(turn: TurnContext) -> Any:
    return 7


def too_long(turn: TurnContext) -> str:
    return "x" * 300_000


release = threading.Event()


def slow(turn: TurnContext) -> str:
    release.wait(60)
    return "x"


async def slow_async(turn: TurnContext) -> str:
    await asyncio.sleep(60)
    return "x"


async def times_out(turn: TurnContext) -> str:
    raise TimeoutError("its own")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (raises, "system_prompt=raises raised ZeroDivisionError: secret words"),
        (raises_later, "raised ZeroDivisionError: secret words"),
        (leaves, "raised SystemExit: 3"),
        (cancels, "raised CancelledError"),
        (returns_a_number, "returned a int, expected text"),
        (too_long, r"returned 300000 bytes: expected at most 262144 \(AGENTAPI_MAX_MESSAGE_BYTES"),
        (slow, r"took longer than 0\.1 s.*AGENTAPI_PROMPT_TIMEOUT"),
        (slow_async, r"took longer than 0\.1 s"),
        (times_out, "raised TimeoutError: its own"),
    ],
)
def test_a_prompt_that_fails_ends_its_turn_and_no_more(
    script: Script,
    eager_orchestrator: Eager,
    caplog: pytest.LogCaptureFixture,
    function: Any,
    why: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    script(says("Hi."))
    agents = [Agent(name="bad", system_prompt=function), Agent(name="good")]
    # Those that fail by themselves have all the time that a busy machine takes.
    prompt_timeout = 0.1 if "longer" in why else 60
    orchestrator = eager_orchestrator(agents, prompt_timeout=prompt_timeout)
    release.clear()
    turn = orchestrator.enqueue("bad", "Go")
    release.set()
    assert_failed(turn, "prompt_failed")
    with pytest.raises(TurnFailed, match=why):
        turn.result()
    assert turn.info().attempt == 1
    assert orchestrator.enqueue("good", "Go").result().text == "Hi."
    assert "secret words" not in caplog.text


def test_contexts_can_be_made_for_tests() -> None:
    assert greet(TurnContext[Shopper](conversation_id="c", turn_id="t", context=ANN)) == (
        "You help Ann (gold)."
    )
    context = ToolContext[Shopper](conversation_id="c", turn_id="t", call_id="k", context=ANN)
    assert plan(context) == "gold None"
    assert context.idempotency_key == "t:k"


async def test_the_wait_for_a_thread_does_not_count() -> None:
    limit_tool_threads(asyncio.get_running_loop(), 1)
    release = threading.Event()
    holds = asyncio.create_task(run_in_tool_thread(release.wait))
    turn = TurnContext[Any](conversation_id="c", turn_id="t")
    caller = FunctionCaller(agent="a", context=turn, timeout=1)
    waits = asyncio.create_task(caller.prompt(lambda turn: "made"))
    await asyncio.sleep(1.2)
    assert not waits.done()
    release.set()
    assert await waits == "made"
    await holds


async def test_a_turn_may_be_stopped_while_it_waits_for_a_thread() -> None:
    limit_tool_threads(asyncio.get_running_loop(), 1)
    release = threading.Event()
    turn = TurnContext[Any](conversation_id="c", turn_id="t")
    caller = FunctionCaller(agent="a", context=turn, timeout=0.05)
    running = asyncio.create_task(caller.prompt(lambda turn: str(release.wait())))
    waits = asyncio.create_task(caller.prompt(lambda turn: "made"))
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    with pytest.raises(PromptFailed, match=r"took longer than 0\.05 s"):
        await running
    release.set()


def test_a_prompt_may_end_the_turn_or_ask_for_another_attempt(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(says("Hi."))
    outcomes: Iterator[Exception | None] = iter(
        [TurnVetoed("closed"), ProviderUnavailable("soon", retry_after=0), None]
    )

    def prompt(turn: TurnContext) -> str:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return "open"

    orchestrator = eager_orchestrator([Agent(system_prompt=prompt)])
    assert_failed(orchestrator.enqueue("agent", "Go"), "vetoed")
    assert orchestrator.enqueue("agent", "Go").result().text == "Hi."


def test_a_failed_prompt_is_shown_to_hooks(script: Script, eager_orchestrator: Eager) -> None:
    script()
    seen: list[Any] = []

    class Watch(Hooks):
        def on_turn_start(self, context: ToolContext[Shopper], message: str) -> None:
            seen.append((context.context.name, context.metadata))

        def on_turn_end(self, context: ToolContext[Shopper], result: Any) -> None:
            seen.append((context.context.plan, result.code))

    agent = Agent(system_prompt=raises, hooks=[Watch()], context_type=Shopper)
    eager_orchestrator([agent]).enqueue("agent", "Go", context=ANN, metadata={"a": 1})
    assert seen == [("Ann", {"a": 1}), ("gold", "prompt_failed")]


def tools_of(turn: TurnContext[Shopper]) -> Sequence[Tool[..., Any]]:
    return [plan] if turn.context.plan == "gold" else []


async def tools_later(turn: TurnContext[Shopper]) -> Sequence[Tool[..., Any]]:
    return tools_of(turn)


@pytest.mark.parametrize("function", [tools_of, tools_later])
def test_tools_of_a_turn(script: Script, eager_orchestrator: Eager, function: Any) -> None:
    model = script(calls(call("plan")), says("Done."), calls(call("plan")), says("Done."))
    agent = Agent(tools=function, context_type=Shopper)
    orchestrator = eager_orchestrator([agent])
    gold = orchestrator.enqueue("agent", "Go", context=ANN).result()
    free = orchestrator.enqueue("agent", "Go", context=Shopper(name="Bob")).result()
    offered = [[spec.name for spec in request.tools] for request in model.requests]
    assert offered == [["plan"], ["plan"], [], []]
    assert gold.messages[2].content == "gold None"
    assert free.messages[2].content == "there is no tool 'plan'; the tools are: none"


@tool
def wants_an_order(context: ToolContext[Order]) -> str:
    """Look."""
    return str(context.context.number)


def stranger() -> Agent:
    return Agent(name="stranger", provider="offline")


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (None, "returned a NoneType, expected a list of tools"),
        ("plan", "returned a str, expected a list of tools"),
        ([print], "print is not a tool; decorate it with @tool"),
        ([plan, plan], "two tools are named 'plan'"),
        ([wants_an_order], "expects a context of type Order"),
        ([stranger().as_tool()], "not registered: stranger; add their module"),
        ([handoff(stranger())], "not registered: stranger; add their module"),
    ],
)
def test_tools_that_are_not_valid_end_the_turn(
    script: Script, eager_orchestrator: Eager, returned: Any, why: str
) -> None:
    script()
    agent = Agent(tools=lambda turn: returned, context_type=Shopper)
    turn = eager_orchestrator([agent]).enqueue("agent", "Go", context=ANN)
    assert_failed(turn, "tools_failed")
    with pytest.raises(TurnFailed, match=why):
        turn.result()


def needs_a_person(context: ToolContext[Shopper], amount: int) -> bool:
    return context.context.plan == "free" or amount > 100


@tool(requires_approval=needs_a_person)
def refund(amount: int, context: ToolContext[Shopper]) -> str:
    """Refund."""
    return f"refunded {amount} to {context.context.name}"


def test_an_approval_may_depend_on_the_context(script: Script, eager_orchestrator: Eager) -> None:
    script(calls(call("refund", amount=5)), says("Done."), calls(call("refund", amount=5)))
    agent = Agent(tools=[refund], context_type=Shopper)
    orchestrator = eager_orchestrator([agent])
    gold = orchestrator.enqueue("agent", "Go", context=ANN)
    assert gold.result().messages[2].content == "refunded 5 to Ann"
    free = orchestrator.enqueue("agent", "Go", context=Shopper(name="Bob"))
    assert [asked.tool for asked in free.pending()] == ["refund"]


typed = Agent(name="typed", provider="openai", system_prompt=greet, context_type=Shopper)


async def test_in_process_the_context_is_checked_first(script: Script) -> None:
    model = script(says("Hi."))
    with pytest.raises(InvalidContext, match="needs a context"):
        await typed.run("Go")
    with pytest.raises(InvalidContext, match="not a Shopper"):
        [_ async for _ in typed.stream("Go", context={})]
    assert [text async for text in typed.stream("Go", context=ANN)] == ["Hi."]
    assert model.requests[0].system_prompt == "You help Ann (gold)."
    with pytest.raises(PromptFailed, match="raised ZeroDivisionError"):
        await Agent(system_prompt=raises).run("Go")
    with pytest.raises(ToolsFailed, match="its tools function returned a int"):
        await Agent(tools=returns_a_number).run("Go")


def test_a_producer_that_knows_the_agent_refuses_at_once(eager_orchestrator: Eager) -> None:
    orchestrator = eager_orchestrator([typed])
    for wrong in (None, {"plan": "x"}, Order(), 7):
        with pytest.raises(InvalidContext):
            orchestrator.enqueue("typed", "Go", conversation_id="c", context=wrong)
    assert orchestrator.history("c") == []


@pytest.mark.parametrize("context", [None, {"plan": "x"}, {"name": 7}])
def test_a_worker_fails_a_turn_whose_context_does_not_match(
    script: Script, eager_orchestrator: Eager, context: Any
) -> None:
    """A producer that knew no agents has accepted it."""
    model = script()
    orchestrator = eager_orchestrator([typed])
    known, orchestrator._agents = orchestrator._agents, {}
    turn = orchestrator.enqueue("typed", "Go", context=context)
    orchestrator._agents = known
    assert_failed(turn, "invalid_context")
    assert turn.info().attempt == 1
    assert model.requests == []


async def test_asyncio_producers_send_it_too(script: Script) -> None:
    model = script(says("Hi."), says("Hi."))
    async with AsyncOrchestrator.eager([typed]) as orchestrator:
        await (await orchestrator.enqueue("typed", "Go", context=ANN)).result()
        [turn] = await orchestrator.enqueue_many(
            [TurnRequest(agent=typed, message="Go", context={"name": "Bob"})]
        )
        await turn.result()
    prompts = [request.system_prompt for request in model.requests]
    assert prompts == ["You help Ann (gold).", "You help Bob (free)."]
