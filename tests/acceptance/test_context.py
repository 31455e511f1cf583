"""Prompts, tools and typed contexts of turns whose workers are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from agentapi import TurnFailed
from agentapi.redis.keys import turn_keys
from agentapi.testing import assert_failed
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.acceptance.with_context import Shopper
from tests.faults import kill, until, worker_of
from tests.gate import Gate

ANN = Shopper(name="Ann")

PROMPT_TIMEOUT = 4
"""Seconds: long enough for prompts that are made at once on a busy machine."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.with_context",),
        workers=2,
        flower=False,
        heartbeat=0.5,
        dispatch_grace=1,
        prompt_timeout=PROMPT_TIMEOUT,
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    """A producer that knows no agents, as in another repository."""
    with Orchestrator(stack.settings) as running:
        yield running
    while len(stack.workers) < 2:
        stack.start_worker()
    stack.wait_for_workers(2)


def journal(stack: Stack, handle: TurnHandle) -> list[Any]:
    with redis.Redis.from_url(stack.redis_url) as client:
        found: Any = client.lrange(turn_keys(handle.turn_id).journal, 0, -1)
    return [orjson.loads(step) for step in found]


def test_a_takeover_runs_with_the_same_prompt_and_tools(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    turn = orchestrator.enqueue("sales", gate.message, context=ANN)
    until(lambda: turn.info().steps == 1)
    [first] = journal(stack, turn)
    assert first["offered"] == ["hold", "sign", "ask"]
    victim = worker_of(stack, turn.info().worker)
    assert first["prompt"].startswith(f"Ann 1 {victim.pid} ")
    kill(stack, victim)
    gate.open()
    # The second worker's functions would return another prompt, and a tool more.
    result = turn.result(timeout=150)
    assert turn.info().attempt == 2
    assert result.text == f"{first['prompt']}; ask,hold,sign; held for Ann"


def test_a_turn_that_waited_for_a_person_continues_with_the_same_prompt(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    turn = orchestrator.enqueue("sales", "/sign", context=ANN)
    until(turn.pending)
    [first] = journal(stack, turn)
    victim = worker_of(stack, turn.info().worker)
    kill(stack, victim)
    [asked] = turn.pending()
    turn.approve(asked.call_id)
    text = turn.result(timeout=150).text
    assert text == f"{first['prompt']}; ask,hold,sign; signed for Ann"
    assert first["prompt"].startswith(f"Ann 1 {victim.pid} ")


def test_a_child_turn_has_its_parents_context_when_its_worker_is_killed(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    gold = Shopper(name="Bob", plan="gold")
    asked = orjson.dumps({"message": gate.message}).decode()
    turn = orchestrator.enqueue("sales", f"/ask {asked}", context=gold)
    until(lambda: [child for child in turn.children() if child.info().steps == 1])
    [child] = turn.children()
    assert child.info().context == {"name": "Bob", "plan": "gold"}
    kill(stack, worker_of(stack, child.info().worker))
    gate.open()
    reply = turn.result(timeout=150).messages[2].content
    assert reply.endswith("; ask,gold_only,hold,sign; held for Bob")
    assert reply.startswith("Bob 1 ")


@pytest.mark.parametrize("context", [None, {"plan": "gold"}, {"name": ["Ann"]}])
def test_a_context_that_does_not_match_fails_at_the_first_attempt(
    orchestrator: Orchestrator, context: Any
) -> None:
    turn = orchestrator.enqueue("sales", "hi", context=context)
    with pytest.raises(TurnFailed, match="context"):
        turn.result(timeout=150)
    assert_failed(turn, "invalid_context")
    assert turn.info().attempt == 1


def test_a_prompt_that_hangs_or_fails_harms_no_other_turn(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    slow = [orchestrator.enqueue("slow_prompt", "hi") for _ in range(4)]
    failing = [orchestrator.enqueue("broken_prompt", "hi", context={"name": "Ann"}) for _ in "1234"]
    good = [orchestrator.enqueue("sales", "hi", context=ANN) for _ in range(4)]
    assert all(turn.result(timeout=150).text.startswith("Ann 1 ") for turn in good)
    said = rf"took longer than {PROMPT_TIMEOUT} s|RuntimeError: words of Ann"
    for turn in (*slow, *failing):
        with pytest.raises(TurnFailed, match=said):
            turn.result(timeout=150)
        assert_failed(turn, "prompt_failed")
        assert turn.info().attempt == 1
    assert all(worker.exit_code is None for worker in stack.workers)
    # What users said is in Redis only.
    assert not any("words of Ann" in worker.log.read_text() for worker in stack.workers)
