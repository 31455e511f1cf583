"""The checker finds each kind of harm when it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.chaos.checker import AcceptedTurn, check, conversation_key, turn_key, two_owners
from tests.chaos.loss import Loss

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
            {"kind": "charge", "turn": t, "step": 1, "attempt": 1, "at": 5.0}
            for t in (FIRST, SECOND)
        ]
        self.losses: list[Loss] = []
        self.events = ["started", "step", "step", "completed"]
        self.statuses = dict.fromkeys((FIRST, SECOND), "completed")

    def turn(self, turn_id: str) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": "hi", "turn_id": turn_id},
            {"role": "assistant", "content": "yo", "turn_id": turn_id},
        ]

    def findings(self) -> dict[str, list[str]]:
        for message in self.history:
            self.client.rpush(conversation_key(C, "messages"), json.dumps(message))
        for turn_id, status in self.statuses.items():
            self.client.hset(turn_key(turn_id), "status", status)
            for number, kind in enumerate(self.events):
                self.client.xadd(
                    f"{turn_key(turn_id)}:events", {"type": kind}, id=f"{number + 1}-0"
                )
        self.ledger.write_text("".join(json.dumps(run) + "\n" for run in self.runs))
        accepted = [AcceptedTurn(C, turn, at=5.0) for turn in (FIRST, SECOND)]
        found = check(self.url, accepted, self.ledger, self.losses)
        return {k: v for k, v in found.zeros.items() if v}


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
    scene.statuses[FIRST] = "failed"


def repeat_a_recorded_step(scene: Scene) -> None:
    scene.events = ["started", "step", "step", "started", "completed"]
    scene.runs += [{"kind": "work", "turn": FIRST, "step": 1, "attempt": 2, "at": 6.0}]


def charge_again(scene: Scene) -> None:
    scene.events = ["started", "step", "started", "step", "completed"]
    scene.runs += [{"kind": "charge", "turn": FIRST, "step": 1, "attempt": 2, "at": 6.0}]


def write(at: float, epoch: int, token: str) -> dict[str, Any]:
    return {
        "kind": "write", "turn": FIRST, "epoch": epoch, "token": token, "began": at - 0.1, "at": at
    }  # fmt: skip


def share(scene: Scene) -> None:
    scene.runs += [write(4, 1, "a"), write(5, 1, "b")]


def return_from_the_dead(scene: Scene) -> None:
    scene.runs += [write(4, 1, "a"), write(5, 2, "b"), write(6, 1, "a")]


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
        (share, "turns written by two owners"),
        (return_from_the_dead, "turns written by two owners"),
    ],
)
def test_harm_is_found(
    redis_url: str, tmp_path: Path, spoil: Callable[[Scene], None], found: str
) -> None:
    scene = Scene(redis_url, tmp_path)
    spoil(scene)
    assert found in scene.findings()


def loss(*, cut: float) -> Loss:
    return Loss(cut=cut, killed=cut + 1, served=cut + 3, bytes_lost=1)


def test_what_died_with_a_master_is_no_harm_if_it_was_answered_then(
    redis_url: str, tmp_path: Path
) -> None:
    scene = Scene(redis_url, tmp_path)
    scene.history = []
    scene.statuses = {}
    scene.losses = [loss(cut=4.5)]
    assert scene.findings() == {}
    # Of another shard.
    scene.losses = [replace(loss(cut=4.5), partitions=frozenset({41, 43}))]
    assert len(scene.findings()["lost"]) == 2
    scene.losses = [loss(cut=50)]
    assert len(scene.findings()["lost"]) == 2


@pytest.mark.parametrize(("cut", "found"), [(5.5, {}), (50, {"non-idempotent calls made twice"})])
def test_a_turn_may_run_again_when_a_master_died_meanwhile(
    redis_url: str, tmp_path: Path, cut: float, found: set[str]
) -> None:
    scene = Scene(redis_url, tmp_path)
    charge_again(scene)
    scene.losses = [loss(cut=cut)]
    assert scene.findings().keys() == set(found)


def test_each_master_has_its_own_order_but_no_epoch_is_used_twice() -> None:
    before, after = write(4, 2, "a"), write(9, 1, "b")
    assert two_owners([before, after], [])
    assert not two_owners([before, after], [loss(cut=5)])
    assert two_owners([before, write(9, 2, "b")], [loss(cut=5)])
