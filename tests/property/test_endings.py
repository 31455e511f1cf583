"""Cut replies and contexts that are too small, while workers die at every step, on both stores.

Whatever is lost, the reply is whole, no recorded part is asked for again, the history is valid, and
the conversation knows at its end how long a request may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentapi import Agent, AssistantMessage, FinishReason, ToolContext, TurnResult, UserMessage
from agentapi.admission import local_gate
from agentapi.conversation.finish import CONTINUE
from agentapi.engine.fitting import Contexts
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.model_chain import chain_of
from agentapi.engine.progress import TurnProgress
from agentapi.errors import ContextTooLong
from agentapi.providers import ModelRequest, ModelResponse, StreamPart, providers
from agentapi.providers.estimate import estimate_request
from agentapi.stores import Claim
from agentapi.testing import assert_valid_history, says
from agentapi.turns import Step, TurnStatus
from tests.conformance.stores import Bench, C, in_memory, on_redis
from workers.turns.endings import completed

WORDS = "one two three four five six seven eight nine ten eleven twelve "
PART = 12
"""Characters of each part of a reply."""

LEASE = 3600
"""Seconds: an example must not outlast it on a busy machine."""

AGENT = Agent(
    name="a", provider="openai", model="m", on_incomplete="continue", max_continuations=9
).definition


class Killed(BaseException):
    """The process died."""


@dataclass
class Fate:
    """Where workers die: at which of their writes, and whether before or after it."""

    deaths: Iterator[int]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = next(self.deaths, 99)

    def survive(self, write: Callable[[], Any]) -> Any:
        """Make a write, unless the worker dies before; or die after it."""
        self.left -= 1
        if self.left == 0:
            self.left = next(self.deaths, 99)
            raise Killed
        answer = write()
        self.left -= 1
        if self.left == 0:
            self.left = next(self.deaths, 99)
            raise Killed
        return answer


@dataclass
class Model:
    """Replies in parts, and has a small context."""

    context: int
    counts: bool
    name: str = "openai"
    default_model: str = "m"
    refused: int = 0
    asked: list[str] = field(default_factory=list)

    async def complete(self, request: ModelRequest) -> ModelResponse:
        tokens = estimate_request(request.system_prompt, request.messages, request.tools)
        if tokens > self.context:
            self.refused += 1
            raise ContextTooLong(
                "too long",
                provider=self.name,
                status=400,
                limit=self.context if self.counts else None,
                counted=tokens if self.counts else None,
            )
        assert_valid_history(request.messages)
        said, begun = request.messages, ""
        if said[-1] == UserMessage(content=CONTINUE):
            begun, said = said[-2].content, said[:-2]
        whole = f"{said[-1].content}: {WORDS}"
        self.asked.append(begun)
        rest = whole.removeprefix(begun)
        reason = FinishReason.LENGTH if len(rest) > PART else FinishReason.STOP
        return says(rest[:PART], input_tokens=tokens, finish_reason=reason)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        yield await self.complete(request)

    async def aclose(self) -> None:
        pass


@dataclass
class Log:
    bench: Bench
    claim: Claim
    fate: Fate
    length: int

    async def record(self, step: Step, steps: list[Step]) -> None:
        write = partial(self.bench.store.record, self.claim.lease, self.length, step)
        self.fate.survive(write)
        self.length += 1
        steps.append(step)

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        raise AssertionError("not a stream")

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        raise AssertionError("no client tools")

    async def joined(self, steps: list[Step]) -> None:
        pass

    async def reset(self) -> None:
        raise AssertionError("not a stream")


async def attempt(bench: Bench, turn_id: str, fate: Fate) -> None:
    """What a worker does with a turn that it claimed; it may die."""
    claim = bench.claim(turn_id, window=AGENT.window)
    contexts = Contexts(calibration=claim.calibration, learned=claim.contexts)
    progress = TurnProgress(
        user=UserMessage(content=claim.turn.input, turn_id=turn_id), steps=list(claim.steps)
    )
    run = TurnRun(
        agent=AGENT,
        history=History(messages=claim.history, calibration=claim.calibration),
        progress=progress,
        context=ToolContext(conversation_id=C, turn_id=turn_id),
        log=Log(bench, claim, fate, len(claim.steps)),
        connect=partial(chain_of, gate=local_gate({}), contexts=contexts),
    )
    result = await run.run()
    assert isinstance(result, TurnResult)
    if contexts.news:
        progress.contexts = {**claim.contexts, **contexts.news}
    fate.survive(partial(bench.store.commit, claim.lease, completed(result, AGENT, progress)))


def run_turn(bench: Bench, message: str, fate: Fate) -> str:
    turn_id = bench.enqueue(message=message)
    while not bench.store.turn(turn_id).status.ended:
        try:
            asyncio.run(attempt(bench, turn_id, fate))
        except Killed:
            if not bench.store.turn(turn_id).status.ended:
                bench.expire_lease(C)
    return turn_id


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Callable[[], Bench]:
    if request.param == "memory":
        return lambda: in_memory(lease_ttl=LEASE)
    return lambda: on_redis(request.getfixturevalue("redis_url"), lease_ttl=LEASE)


@given(
    deaths=st.lists(st.integers(1, 9), max_size=6),
    context=st.integers(120, 260),
    counts=st.booleans(),
    turns=st.integers(1, 6),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_replies_are_whole_and_contexts_are_learned(
    make: Callable[[], Bench], deaths: list[int], context: int, counts: bool, turns: int
) -> None:
    bench = make()
    bench.store.reset(C)
    model, fate = Model(context=context, counts=counts), Fate(iter(deaths))
    with providers.replaced("openai", lambda: model):
        for number in range(turns):
            message = f"message {number}"
            whole = f"{message}: {WORDS}"
            model.asked.clear()
            before = bench.store.history(C)
            turn = bench.store.turn(run_turn(bench, message, fate))
            assert turn.status is TurnStatus.COMPLETED
            assert (turn.text, turn.finish_reason) == (whole, FinishReason.STOP)
            history = bench.store.history(C)
            assert_valid_history(history)
            [said, reply] = history[len(before) :]
            assert (said.content, reply.content) == (message, whole)
            assert isinstance(reply, AssistantMessage)
            # Each part once, but for those that a death took before they were recorded.
            parts = -(-len(whole) // PART)
            assert len(set(model.asked)) == parts
            assert len(model.asked) <= parts + len(deaths)
            assert turn.steps == parts
        if deaths == [] and turns > 1:
            # It learns once, not in each turn.
            model.refused = 0
            run_turn(bench, f"message {turns}", fate)
            assert model.refused <= 1
    bench.store.close()
