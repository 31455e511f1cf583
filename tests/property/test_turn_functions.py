"""Prompts and tools that are functions, under workers that die at any point.

The functions return something else at each call. Whatever the order of steps, deaths and waits, a
model never sees another prompt than the one that was recorded with the agent's first response, nor
a tool that the first worker did not offer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agentapi import Agent, TurnContext, handoff, tool
from agentapi.conversation.messages import AssistantMessage, UserMessage
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import Suspension
from agentapi.providers.base import ModelRequest, ModelResponse, Provider, StreamPart
from agentapi.stores import Claim, Ending, Suspended
from agentapi.testing import call, calls, says
from agentapi.tools import BaseTool
from agentapi.turns import (
    Decision,
    ModelStep,
    Step,
    TurnResult,
    TurnStatus,
    Verdict,
)
from tests.conformance.stores import Bench, in_memory, on_redis
from workers.turns.work import context_of

NAMES: Final = ("a", "b")


class Shopper(BaseModel):
    """The context."""

    name: str


class Reply(BaseModel):
    """The output."""

    ok: bool


class Died(Exception):
    """The process is gone."""


@tool(idempotent=True)
def step() -> str:
    """Do something."""
    return "done"


@tool(requires_approval=True)
def sign() -> str:
    """Do something that a person must allow."""
    return "signed"


@dataclass
class Life:
    """Ends after a number of points."""

    left: int | None

    def point(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Died


@dataclass
class Shown:
    """What a model was shown in one call."""

    agent: str
    prompt: str
    tools: tuple[str, ...]


@dataclass
class World:
    """Two agents whose functions never return the same twice, and their model."""

    plan: Sequence[str]
    blocking: bool
    forgets: bool
    made: int = 0
    shown: list[Shown] = field(default_factory=list)
    recorded: list[tuple[str, ModelStep]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def agents(self) -> dict[str, Any]:
        return {name: self._agent(name).definition for name in NAMES}

    def _agent(self, name: str) -> Agent:
        def prompt(turn: TurnContext[Shopper]) -> str:
            self.made += 1
            self.asked.append(name)
            assert turn.context == Shopper(name="Ann")
            assert turn.metadata == {"from": "web"}
            return f"{name} {self.made}"

        async def prompt_later(turn: TurnContext[Shopper]) -> str:
            return prompt(turn)

        def tools(turn: TurnContext[Shopper]) -> Sequence[BaseTool]:
            self.made += 1
            assert turn.context == Shopper(name="Ann")
            other = NAMES[1 - NAMES.index(name)]
            extra = tool(name=f"extra_{self.made}")(step.function)
            kept = [] if self.forgets and self.made > 2 else [step]
            return [*kept, sign, handoff(other), extra]

        return Agent(
            name=name,
            system_prompt=prompt if self.blocking else prompt_later,
            tools=tools,
            output_type=Reply,
            output_retries=len(self.plan),
            context_type=Shopper,
        )


class Model:
    """Follows the plan; where it is can be read from the request."""

    name = "planned"
    default_model = "planned-1"

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    async def complete(self, request: ModelRequest) -> ModelResponse:
        self._life.point()
        place = sum(isinstance(message, AssistantMessage) for message in request.messages)
        agent, _, _ = request.system_prompt.partition(" ")
        names = tuple(spec.name for spec in request.tools)
        self._world.shown.append(Shown(agent, request.system_prompt, names))
        wanted = self._world.plan[place] if place < len(self._world.plan) else "reply"
        if wanted == "reply":
            return says('{"ok": true}')
        if wanted == "nonsense":
            return says("no JSON")
        other = NAMES[1 - NAMES.index(agent)]
        return calls(call(f"transfer_to_{other}" if wanted == "hand over" else wanted, f"c{place}"))

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        yield await self.complete(request)

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class Journal:
    """A turn's log: dies before or after a write."""

    bench: Bench
    claim: Claim
    world: World
    life: Life
    index: int

    async def record(self, step: Step, steps: list[Step]) -> None:
        self.life.point()
        self.bench.store.record(self.claim.lease, self.index, step)
        self.index += 1
        if isinstance(step, ModelStep):
            self.world.recorded.append((self.world.shown[-1].agent, step))
        self.life.point()
        steps.append(step)

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        """Nobody listens."""

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        """Nobody listens."""

    async def reset(self) -> None:
        """Nobody listens."""

    async def joined(self, steps: list[Step]) -> None:
        """Nobody sends any."""


async def attempt(bench: Bench, world: World, claim: Claim, life: Life) -> Any:
    agents = world.agents()
    model: Provider = Model(world, life)
    run = TurnRun(
        agent=agents["a"],
        history=History(),
        progress=TurnProgress(
            user=UserMessage(content=claim.turn.input, turn_id=claim.turn.turn_id),
            steps=list(claim.steps),
        ),
        context=context_of(claim),
        log=Journal(bench, claim, world, life, len(claim.steps)),
        connect=lambda _: model,
        book=claim.calls,
        agents=agents,
    )
    return await run.run()


def play(bench: Bench, world: World, deaths: Sequence[int]) -> TurnResult:
    """Run one turn to its end, with a worker more for each death and each wait."""
    turn_id = bench.enqueue(context={"name": "Ann"}, metadata={"from": "web"})
    remaining = list(deaths)
    while True:
        claim = bench.claim(turn_id)
        life = Life(remaining.pop() if remaining else None)
        try:
            outcome = asyncio.run(attempt(bench, world, claim, life))
        except Died:
            bench.expire_lease(claim.lease.conversation_id)
            continue
        if isinstance(outcome, Suspension):
            assert bench.store.calls.suspend(claim.lease, outcome.held) is Suspended.PARKED
            for question in outcome.held.questions:
                approved = Decision(verdict=Verdict.APPROVED)
                bench.store.calls.decide(turn_id, question.call_id, approved)
            continue
        ending = Ending(status=TurnStatus.COMPLETED, messages=outcome.messages, steps=outcome.steps)
        bench.store.commit(claim.lease, ending)
        return TurnResult(
            text=outcome.text, messages=outcome.messages, usage=outcome.usage, steps=outcome.steps
        )


def check(world: World) -> None:
    """Compare what models were shown with what was recorded."""
    first: dict[str, ModelStep] = {}
    for agent, recorded in world.recorded:
        if agent not in first:
            first[agent] = recorded
            assert recorded.prompt is not None
            assert recorded.offered is not None
        else:
            # Once is enough: it would only cost bytes.
            assert (recorded.prompt, recorded.offered) == (None, None)
    for agent, recorded in first.items():
        prompts = [shown.prompt for shown in world.shown if shown.agent == agent]
        since = prompts.index(str(recorded.prompt))
        assert set(prompts[since:]) == {recorded.prompt}
        offered = [set(s.tools) for s in world.shown if s.agent == agent][since:]
        assert all(names <= set(recorded.offered or ()) for names in offered)
        # The tools that every call returns are there in every call.
        assert all({"sign"} <= names for names in offered)


WORLDS: Final = st.builds(
    World,
    plan=st.lists(st.sampled_from(("step", "sign", "hand over", "nonsense")), max_size=5),
    blocking=st.booleans(),
    forgets=st.booleans(),
)
DEATHS: Final = st.lists(st.integers(0, 8), max_size=4)

SETTINGS: Final = settings(
    max_examples=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
)


def explore(make_bench: Callable[[], Bench]) -> None:
    @SETTINGS
    @given(world=WORLDS, deaths=DEATHS)
    def turns(world: World, deaths: list[int]) -> None:
        bench = make_bench()
        try:
            assert play(bench, world, deaths).text == '{"ok": true}'
        finally:
            bench.store.close()
        check(world)

    turns()


def test_functions_of_a_turn_in_memory() -> None:
    explore(in_memory)


def test_functions_of_a_turn_on_redis(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:

        def fresh() -> Bench:
            client.flushdb()
            return on_redis(redis_url)

        explore(fresh)


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_tool_that_is_gone_after_a_takeover_is_refused(
    store: str, request: pytest.FixtureRequest
) -> None:
    """The model is told; nothing else of the turn changes."""
    redis_url = request.getfixturevalue("redis_url") if store == "redis" else ""
    bench = on_redis(redis_url) if redis_url else in_memory()
    world = World(plan=["step", "step"], blocking=True, forgets=True)
    # The first worker dies when the first response is recorded: its call may have been made.
    result = play(bench, world, [2])
    bench.store.close()
    told = [m.content for m in result.messages if m.role == "tool"]
    assert "outcome of this call is unknown" in told[0]
    assert told[0].endswith(f"The tool 'step' is no longer available; {told[1].split('; ')[1]}")
    assert told[1].startswith("The tool 'step' is no longer available; the tools are: sign, ")
    assert [shown.prompt for shown in world.shown] == ["a 2"] * 3
