"""The checker finds each kind of harm when it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.chaos.checker import AcceptedTurn, check, conversation_key, turn_key

C = "chaos:1"
FIRST, SECOND = "042-" + "1" * 32, "042-" + "2" * 32


class Scene:
    """Two turns that went well, to be spoiled."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.ledger = folder / "ledger.jsonl"
        self.history = [*self.turn(FIRST), *self.turn(SECOND)]
        self.runs = [
            {"kind": "charge", "turn": t, "step": 1, "attempt": 1} for t in (FIRST, SECOND)
        ]
        self.events = ["started", "step", "step", "completed"]
        self.status = "completed"

    def turn(self, turn_id: str) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": "hi", "turn_id": turn_id},
            {"role": "assistant", "content": "yo", "turn_id": turn_id},
        ]

    def findings(self) -> dict[str, list[str]]:
        for message in self.history:
            self.client.rpush(conversation_key(C, "messages"), json.dumps(message))
        for turn_id in (FIRST, SECOND):
            self.client.hset(turn_key(turn_id), "status", self.status)
            for number, kind in enumerate(self.events):
                self.client.xadd(
                    f"{turn_key(turn_id)}:events", {"type": kind}, id=f"{number + 1}-0"
                )
        self.ledger.write_text("".join(json.dumps(run) + "\n" for run in self.runs))
        self.client.close()
        accepted = [AcceptedTurn(C, FIRST), AcceptedTurn(C, SECOND)]
        return {k: v for k, v in check(self.url, accepted, self.ledger).zeros.items() if v}


def lose(scene: Scene) -> None:
    scene.history = scene.history[:2]


def double(scene: Scene) -> None:
    scene.history += scene.turn(FIRST)


def disorder(scene: Scene) -> None:
    scene.history = [*scene.turn(SECOND), *scene.turn(FIRST)]


def halve(scene: Scene) -> None:
    scene.history.pop()


def invent(scene: Scene) -> None:
    scene.history += scene.turn("042-" + "3" * 32)


def fail(scene: Scene) -> None:
    scene.status = "failed"


def repeat_a_recorded_step(scene: Scene) -> None:
    scene.events = ["started", "step", "step", "started", "completed"]
    scene.runs += [{"kind": "work", "turn": FIRST, "step": 1, "attempt": 2}]


def charge_again(scene: Scene) -> None:
    scene.events = ["started", "step", "started", "step", "completed"]
    scene.runs += [{"kind": "charge", "turn": FIRST, "step": 1, "attempt": 2}]


def test_all_is_well(redis_url: str, tmp_path: Path) -> None:
    assert Scene(redis_url, tmp_path).findings() == {}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lose, "lost"),
        (double, "committed twice"),
        (disorder, "out of order"),
        (halve, "half visible"),
        (invent, "messages of no accepted turn"),
        (fail, "failed"),
        (repeat_a_recorded_step, "recorded steps run again"),
        (charge_again, "non-idempotent calls made twice"),
    ],
)
def test_harm_is_found(
    redis_url: str, tmp_path: Path, spoil: Callable[[Scene], None], found: str
) -> None:
    scene = Scene(redis_url, tmp_path)
    spoil(scene)
    assert found in scene.findings()
