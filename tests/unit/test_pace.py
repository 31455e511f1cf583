"""What a process has done in the last minute, and what workers say about their work."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agentapi.metrics.activity import ProviderUse, RunningNow, WorkerActivity
from agentapi.metrics.pace import WINDOW, Done, Pace


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_minute_slides() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.add(ended=1, tokens=5)
    clock.now += 30
    pace.add(ended=1, failed=1, cost=0.5)
    pace.add(model_calls=1)
    everything = Done(ended=2, failed=1, model_calls=1, tokens=5, cost=0.5)
    assert pace.minute() == pace.total() == everything
    clock.now += WINDOW - 30
    assert pace.minute() == Done(ended=1, failed=1, model_calls=1, cost=0.5)
    clock.now += 30
    assert pace.minute() == Done()
    # The place of a second is used again.
    pace.add(ended=1)
    assert pace.minute() == Done(ended=1)
    assert pace.total() == everything + Done(ended=1)


def test_an_answer_crosses_the_broker() -> None:
    said = WorkerActivity(
        process="p",
        pid=7,
        slots=2,
        used=1,
        agents=["a"],
        queues=["agentapi.0"],
        faults=["agentapi-heartbeat"],
        providers={"openai": ProviderUse(tokens=1000)},
        minute=Done(ended=3, cost=0.1),
        turns=[RunningNow(turn_id="000-1", conversation_id="c", agent="a", tools=["look"])],
    )
    assert WorkerActivity.from_json(json.loads(json.dumps(said.to_json()))) == said


def test_answers_of_other_releases() -> None:
    assert WorkerActivity.from_json({"error": "no such command"}) is None
    assert WorkerActivity.from_json("odd") is None
    newer = {"slots": 1, "colour": "red", "minute": {"ended": "many", "colour": 1}, "turns": ()}
    assert WorkerActivity.from_json(newer) == WorkerActivity(slots=1, turns=[])
