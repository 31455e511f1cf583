"""Three workers, four producers at once, 200 conversations of five turns: all whole, in order."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

from agentapi import TurnStatus
from orchestrator import Orchestrator, TurnRequest
from orchestrator.demo.check import check_history
from orchestrator.demo.report import totals
from orchestrator.stack import Stack

PRODUCERS = 4
CONVERSATIONS = 200
TURNS = 5


def produce(redis_url: str, producer: int) -> list[str]:
    """One producer process: its share of the conversations, round by round."""
    from agentapi import load_settings

    settings = load_settings(redis_url=redis_url, broker_url=redis_url)
    with Orchestrator(settings) as orchestrator:
        handles = orchestrator.enqueue_many(
            [
                TurnRequest(
                    agent="support" if number % 3 else "plan",
                    message=f'/lookup_order {{"order_id": "{number}"}}'
                    if turn == 2
                    else f"turn {turn} of {number}",
                    conversation_id=f"user:{number}",
                )
                for turn in range(TURNS)
                for number in range(producer, CONVERSATIONS, PRODUCERS)
            ]
        )
        return [handle.turn_id for handle in handles]


def test_every_turn_once_and_in_order(tmp_path: Path) -> None:
    with Stack(tmp_path, agents=("examples.agents",), workers=3, flower=False) as stack:
        started = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(PRODUCERS) as pool:
            accepted = pool.starmap(
                produce, [(stack.redis_url, producer) for producer in range(PRODUCERS)]
            )
        with Orchestrator(stack.settings) as orchestrator:
            handles = [orchestrator.turn(turn_id) for ids in accepted for turn_id in ids]
            for handle in handles:
                handle.result(timeout=250)
            elapsed = time.monotonic() - started
            turns = [handle.info() for handle in handles]
            problems: list[str] = []
            for number in range(CONVERSATIONS):
                conversation_id = f"user:{number}"
                expected = [
                    (turn.turn_id, turn.input)
                    for turn in turns
                    if turn.conversation_id == conversation_id
                ]
                assert len(expected) == TURNS
                history = orchestrator.history(conversation_id)
                problems += check_history(conversation_id, expected, history)
    assert problems == []
    assert {turn.status for turn in turns} == {TurnStatus.COMPLETED}
    assert {turn.attempt for turn in turns} == {1}
    assert len({turn.worker for turn in turns}) == 3
    figures = totals(turns, elapsed)
    print(
        f"\n{figures.turns} turns from {PRODUCERS} producers over 3 workers: "
        f"{figures.rate:.0f} turns/s, median {figures.median * 1000:.0f} ms, "
        f"99th percentile {figures.p99 * 1000:.0f} ms"
    )
