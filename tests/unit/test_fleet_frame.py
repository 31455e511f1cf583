"""How `agentapi top` draws a fleet, on terminals of any size."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from agentapi.metrics.activity import ProviderUse, RunningNow, WorkerActivity
from agentapi.metrics.pace import Done
from agentapi.stores import TurnSummary
from agentapi.stores.backlog import ReadyTurn
from agentapi.turns import TurnError, TurnStatus
from orchestrator.cli.fleet_frame import Order, frame
from orchestrator.cli.times import span
from orchestrator.cli.top import snapshot_json
from orchestrator.fleet import FleetProvider, FleetSnapshot, FleetTurns, FleetWorker

ID = "042-0123456789abcdef0123456789abcd{:02}"


def turn(number: int, seconds: float, agent: str = "shop", **more: Any) -> RunningNow:
    turn_id = ID.format(number)
    return RunningNow(
        turn_id=turn_id, conversation_id=f"user:{number}", agent=agent, seconds=seconds, **more
    )


def worker(name: str, *turns: RunningNow, silent: float = 0.0, **more: Any) -> FleetWorker:
    said = {"slots": 4, "used": len(turns), "uptime": 90.0, "version": "1.2.3", **more}
    activity = WorkerActivity(turns=turns, **said)
    return FleetWorker(name=name, activity=activity, silent=silent)


def failed(number: int, code: str) -> TurnSummary:
    return TurnSummary(
        turn_id=ID.format(number),
        conversation_id="user:9",
        agent="shop",
        status=TurnStatus.FAILED,
        created_at=0.0,
        ended_at=1.0,
        error=TurnError(code=code, message="what the user said"),
    )


FULL = FleetSnapshot(
    taken_at=1_800_000_000.0,
    workers=[
        worker(
            "one@a",
            turn(1, 12.0, doing="tools", tools=["look", "refund"]),
            turn(2, 200.0),
            minute=Done(ended=90, failed=2, model_calls=3, tokens=12_345, cost=0.25),
        ),
        worker("two@a", turn(3, 40.0, agent="aide"), minute=Done(ended=30)),
        worker("three@a", silent=7.0),
    ],
    turns=FleetTurns(
        ready=1200,
        running=3,
        parked={"tool_server": 1, "approval": 12},
        oldest=ReadyTurn(turn_id=ID.format(5), conversation_id="c", agent="shop"),
        oldest_seconds=65.0,
        since_sweep=31.0,
    ),
    providers=[
        FleetProvider(name="well"),
        FleetProvider(name="held", held=5.0),
        FleetProvider(name="away", open=2.0),
        FleetProvider(name="limited", requests=5, limit=ProviderUse(requests=10)),
    ],
    failures=[failed(6, "provider_rejected"), failed(7, "internal")],
)


def drawn(snapshot: FleetSnapshot, width: int = 200, **more: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=more.get("height"))
    with console.capture() as capture:
        console.print(frame(snapshot, width=width, **more))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_wide_terminal_shows_everything() -> None:
    text = "\n".join(drawn(FULL))
    for part in (
        "workers 2  slots 3/8 ████░░░░░░  ready 1,200  running 3",
        "parked 13: 12 approval, 1 tool server",
        f"oldest ready 1m05s {ID.format(5)} shop",
        "swept 31s ago",
        # 90 and 30 turns in a minute.
        "ended 2.0/s  failed 2/min  model calls 3/min  tokens 12.3k/min  cost 0.25/min",
        "silent 7.0s",
        "1 look, refund, 1 model",
        f"{ID.format(2)}  3m20s  shop",
        "held      on hold for 5.0s",
        "away      paused, next attempt in 2.0s",
        "limited   ok                            5/10 requests",
        "provider_rejected",
    ):
        assert part in text
    assert "well" not in text
    assert "what the user said" not in text


def test_workers_with_a_fault_come_first() -> None:
    lines = drawn(FULL)
    [title] = [number for number, line in enumerate(lines) if line.startswith("WORKER")]
    assert lines[title + 1].startswith("three@a")


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [1, 5, 12, 24, 50])
def test_no_terminal_is_too_small(width: int, height: int) -> None:
    lines = drawn(FULL, width, height=height, foot="q quit")
    assert max(map(len, lines)) <= width
    # What is more is cut off by the terminal: the head and the foot alone may be too long.
    if width >= 40 and height >= 12:
        assert len(lines) <= height


def test_a_narrow_terminal_shows_what_matters() -> None:
    text = "\n".join(drawn(FULL, 40))
    assert "WORKER" in text
    assert "silent 7.0s" in text
    # Ids do not fit beside anything.
    assert ID.format(2) not in text
    assert "3m20s" in text
    assert "provider_rejected" in text
    assert ID.format(2) in "\n".join(drawn(FULL, 80))


def test_a_list_that_is_cut_says_so() -> None:
    many = FleetSnapshot(
        taken_at=0.0, workers=[worker(f"w{n:03}@a", turn(n % 100, n)) for n in range(100)]
    )
    lines = drawn(many, height=30, foot="q quit")
    assert len(lines) == 30
    assert sum(line.startswith("…") and line.endswith("more") for line in lines) == 2
    shown = sum(line.startswith("w") and "@a" in line for line in lines)
    assert f"… {100 - shown} more" in lines


def test_the_order_of_running_turns() -> None:
    def order(by: Order) -> list[str]:
        lines = drawn(FULL, order=by)
        return [ID.format(n) for line in lines for n in (1, 2, 3) if line.startswith(ID.format(n))]

    ids = [ID.format(n) for n in range(4)]
    assert order(Order.TIME) == [ids[2], ids[3], ids[1]]
    assert order(Order.WORKER) == [ids[2], ids[1], ids[3]]
    assert order(Order.AGENT) == [ids[3], ids[2], ids[1]]
    assert [each.next for each in Order] == [Order.WORKER, Order.AGENT, Order.TIME]


def test_what_cannot_be_reached_is_said() -> None:
    away = FleetSnapshot(taken_at=0.0, redis_fault="Redis is away", broker_fault="no broker")
    lines = drawn(away)
    assert lines[:2] == ["Redis is away", "no broker"]
    assert "workers 0" in lines[2]
    assert not drawn(away, faults=False)[0].startswith("Redis")


def test_workers_that_were_not_asked_yet_are_not_missing() -> None:
    lines = drawn(FleetSnapshot(taken_at=0.0, asked=False, turns=FleetTurns()))
    assert "asking the workers" in lines[0]
    assert "workers 0" not in lines[0]
    assert "ended" not in lines[0]


def test_names_do_not_control_the_terminal() -> None:
    hostile = FleetSnapshot(
        taken_at=0.0, workers=[worker("\x1b[2Jbad@a", turn(1, 1.0, agent="a\nb"))]
    )
    text = "\n".join(drawn(hostile))
    assert "\x1b" not in text
    assert "\\x1b[2Jbad@a" in text
    assert "a b" in text


def test_json_for_programs() -> None:
    found = snapshot_json(FULL)
    assert found["taken_at"] == "2027-01-15T08:00:00.000+00:00"
    assert (found["slots"], found["used"], found["minute"]["ended"]) == (8, 3, 120)
    first = found["workers"][0]
    assert (first["name"], first["state"], first["turns"][0]["tools"]) == (
        "one@a",
        "ready",
        ["look", "refund"],
    )
    assert found["turns"]["oldest"]["turn_id"] == ID.format(5)
    assert found["failures"][0]["error"]["code"] == "provider_rejected"
    assert snapshot_json(FleetSnapshot(taken_at=0.0))["failures"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.44, "0.4s"), (9.97, "10s"), (59.4, "59s"), (65, "1m05s"), (7260, "2h01m"),
     (90_000, "1d01h")],
)  # fmt: skip
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert span(seconds) == text
