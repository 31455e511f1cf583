"""A turn's timeline: of a run in memory, and of logs as the store keeps them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from agentapi import Agent, tool
from agentapi.errors import ProviderRejected
from agentapi.stores import TurnPast
from agentapi.testing import call, calls, says, scripted
from agentapi.turns import Turn, TurnStatus
from agentapi.turns.marks import Mark, MarkKind, marks_of
from orchestrator import Orchestrator
from orchestrator.cli import timeline as command
from orchestrator.cli.console import console
from orchestrator.timeline import AttemptEnd, Timeline
from orchestrator.timeline_reader import timeline_of
from orchestrator.timeline_rows import rows_of


@tool(requires_approval=True)
def refund(order_id: str) -> str:
    """Pay an order back.

    Args:
        order_id: The order.
    """
    return f"refunded {order_id}"


@tool
def look(order_id: str) -> str:
    """Look an order up.

    Args:
        order_id: The order.
    """
    raise ValueError("no such order")


agent = Agent(name="desk", system_prompt="Help.", provider="openai", tools=[refund, look])


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with Orchestrator.eager([agent]) as made:
        yield made


def decided(orchestrator: Orchestrator) -> Timeline:
    acts = (
        calls(call("look", "c1", order_id="7"), call("refund", "c2", order_id="7")),
        says("Done."),
    )
    with scripted(*acts):
        turn = orchestrator.enqueue("desk", "Refund order 7")
        turn.approve("c2", by="kim", arguments={"order_id": "8"})
        turn.result(timeout=10)
    return turn.timeline()


def test_a_turn_that_waited_for_a_decision(orchestrator: Orchestrator) -> None:
    timeline = decided(orchestrator)
    assert timeline.complete
    assert [attempt.end for attempt in timeline.attempts] == [
        AttemptEnd.PARKED,
        AttemptEnd.COMPLETED,
    ]
    assert [attempt.cause for attempt in timeline.attempts] == ["first", "woken"]
    assert [wait.reason for wait in timeline.waits] == ["queue", "approval"]
    assert timeline.waits[1].names == ("refund",)
    assert all(wait.ended_at is not None for wait in timeline.waits)
    assert [(step.kind, step.name, step.outcome) for step in timeline.steps] == [
        ("model", "openai:script-1", ""),
        ("tool", "look", "failed"),
        ("tool", "refund", ""),
        ("model", "openai:script-1", ""),
    ]
    assert [step.index for step in timeline.steps] == [0, 1, 2, 3]
    assert [step.attempt for step in timeline.steps] == [1, 1, 2, 2]
    assert all(step.seconds is not None for step in timeline.steps)
    [asked] = timeline.approvals
    assert (asked.tool, asked.by, asked.verdict) == ("refund", "kim", "edited")
    assert asked.asked_at is not None
    assert asked.decided_at is not None
    assert asked.asked_at <= asked.decided_at
    assert asked.arguments == {"order_id": "7"}
    assert asked.edited == {"order_id": "8"}


def test_what_was_said_is_beside_its_step_and_can_be_left_out(orchestrator: Orchestrator) -> None:
    timeline = decided(orchestrator)
    said = [step.message and step.message["content"] for step in timeline.steps]
    assert said[0] == ""
    assert "no such order" in str(said[1])
    assert "refunded 8" in str(said[2])
    assert said[3] == "Done."
    shown = json.dumps(command.timeline_json(timeline.without_content()))
    for secret in ("order_id", "refunded", "Done.", "no such order"):
        assert secret not in shown
    assert '"kim"' in shown


def test_a_retry_asks_again_and_its_steps_keep_their_numbers(orchestrator: Orchestrator) -> None:
    with scripted(calls(call("look", "c1", order_id="7")), ProviderRejected("no")):
        turn = orchestrator.enqueue("desk", "Where is order 7?")
    with scripted(says("I do not know.")):
        turn.retry()
    timeline = turn.timeline()
    assert [attempt.end for attempt in timeline.attempts] == [
        AttemptEnd.FAILED,
        AttemptEnd.COMPLETED,
    ]
    assert [wait.reason for wait in timeline.waits] == ["queue", "retried"]
    assert [step.index for step in timeline.steps] == [0, 1, 2]
    assert timeline.steps[2].message is not None


def past_of(*marks: tuple[float, MarkKind, list[Any]], **turn: Any) -> TurnPast:
    found = Turn(
        turn_id="001-x",
        conversation_id="c",
        agent="a",
        input="hi",
        created_at=100.0,
        attempt=turn.pop("attempt", 1),
        status=turn.pop("status", TurnStatus.RUNNING),
        **turn,
    )
    read = [Mark(at=100 + at, kind=kind, data=data) for at, kind, data in marks]
    return TurnPast(turn=found, marks=read, steps=(), pending=(), now=110.0)


C, M, T = MarkKind.CLAIMED, MarkKind.MODEL, MarkKind.TOOL


def test_a_lost_worker_that_comes_back_is_named() -> None:
    timeline = timeline_of(
        past_of(
            (1, C, [1, "w1", "first", 1000, 1000]),
            (5, MarkKind.LOST, []),
            (6, C, [2, "w2", "lease_expired", 1000, 6000]),
            (7, MarkKind.REFUSED, ["record", 1000]),
            (8, MarkKind.REFUSED, ["commit", 77]),
            attempt=2,
        )
    )
    first, second = timeline.attempts
    assert (first.end, first.ended_at, second.end) == (AttemptEnd.LOST, 105.0, None)
    assert [wait.reason for wait in timeline.waits] == ["queue", "lost"]
    assert [(r.write, r.attempt, r.worker) for r in timeline.refused] == [
        ("record", 1, "w1"),
        ("commit", None, None),
    ]
    rows = rows_of(timeline)
    assert [row.kind for row in rows] == [
        *("waiting", "attempt", "waiting", "attempt", "refused write", "refused write")
    ]
    assert rows[4].detail == "attempt 1 w1 had lost the turn"


def test_a_log_without_its_beginning_says_so_and_numbers_from_the_end() -> None:
    timeline = timeline_of(
        past_of(
            (3, M, [10, "m", 1, 2, 0, 0.5, "", 1]),
            (4, T, [10, "t", "c9", 0]),
            attempt=4,
            steps=12,
        )
    )
    assert not timeline.complete
    assert [step.index for step in timeline.steps] == [10, 11]
    assert timeline.cost == 0.5
    assert not timeline.attempts


def test_children_and_what_became_of_them() -> None:
    timeline = timeline_of(
        past_of(
            (1, C, [1, "w1", "first", 0, 1000]),
            (2, MarkKind.DELEGATED, ["c1", ["002-a", "002-b"]]),
            (2, MarkKind.PARKED, [{"reason": "children", "turns": []}]),
            (3, MarkKind.REPLIED, [{"turn": "002-a", "status": "completed"}]),
            status=TurnStatus.CANCELLED,
            ended_at=104.0,
        )
    )
    first, second = timeline.children
    assert (first.status, first.ended_at) == (TurnStatus.COMPLETED, 103.0)
    assert second.status is None
    assert [row.detail for row in rows_of(timeline) if row.kind == "child"] == [
        "completed",
        "left behind",
    ]
    assert timeline.waits[-1].ended_at == 104.0


def test_a_mark_that_cannot_be_read_leaves_the_others() -> None:
    timeline = timeline_of(past_of((1, C, [1, "w1", "first", 0, 1000]), (2, M, ["what"])))
    assert len(timeline.attempts) == 1
    assert not timeline.complete
    log = b'[1,"c",1,"w","first",0,1]\nnonsense\n[2,"z",3]\n[3,"u"]'
    assert [mark.kind for mark in marks_of(log, 0)] == ["c", "u"]


def test_the_picture_fits_the_terminal(
    orchestrator: Orchestrator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An earlier test may have made the commands' console, with another width.
    monkeypatch.setattr(console, "real", Console(width=100))
    timeline = decided(orchestrator)
    command._print(timeline, rows_of(timeline))
    shown = capsys.readouterr().out
    assert re.search(r"approval +refund .*with other\s+arguments by kim", shown) or "kim" in shown
    assert "░" in shown
    assert "█" in shown
    assert max(map(len, shown.splitlines())) <= 100
