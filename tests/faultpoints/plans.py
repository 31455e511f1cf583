"""Which faults there are: every effect at every passage of every point, and pairs of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tests.faultpoints.cell import Planned
from tests.faultpoints.effects import Effect, Fault, Kind

_DEATHS: Final = (Effect.KILL, Effect.KILL_AFTER)
_ERRORS: Final = (Effect.EXCEPTION, Effect.BASE_EXCEPTION)
_NETWORK: Final = (Effect.REDIS_ERROR, Effect.TIMEOUT, Effect.LOST_ANSWER)
_CALL: Final = (*_DEATHS, *_ERRORS, *_NETWORK, Effect.HANG)

EFFECTS: Final[Mapping[Kind, Sequence[Effect]]] = {
    Kind.SCRIPT: _CALL,
    Kind.COMMAND: _CALL,
    Kind.PUBLISH: _CALL,
    Kind.BROKER: _CALL,
    Kind.AWAIT: (*_CALL, Effect.CANCEL),
    Kind.HAND_OFF: (*_DEATHS, *_ERRORS, Effect.HANG),
    Kind.BEGIN: (*_DEATHS, Effect.HANG),
    Kind.STEP: (Effect.KILL, *_ERRORS, Effect.HANG),
}
"""What can happen at a point of each kind. Only what is awaited can be cancelled. What is raised by
work that was handed off, the points in it raise."""

SCENARIOS: Final[Mapping[str, Sequence[str]]] = {
    "turn": ("worker", "producer"),
    "stop": ("worker", "producer"),
    "gateway": ("gateway",),
    "archive": ("worker",),
}
"""Whose points are looked at in each scenario."""


RAISES_NOTHING: Final[Mapping[str, str]] = {
    "hand-off orchestrator.events.async_follower._OnLoop.__call__: "
    "self.loop.call_soon_threadsafe": (
        "it fails only when the event loop has ended, and nobody waits any more"
    ),
}
"""Points where an error has one meaning, which a test cannot give it."""


def effects_at(point: str) -> Sequence[Effect]:
    """What can happen at a point."""
    effects = EFFECTS[Kind(point.partition(" ")[0])]
    if point in RAISES_NOTHING:
        return [effect for effect in effects if effect.kills or effect is Effect.HANG]
    if ": with " in point:
        # What was entered would never be left: no code can be written for that.
        return [effect for effect in effects if effect is not Effect.LOST_ANSWER]
    return effects


def singles(
    scenario: str, role: str, passed: Mapping[str, int], occurrences: int
) -> Iterator[Planned]:
    """All faults of a role, one at a time.

    Args:
        scenario: In which the points were passed.
        role: Whose they are.
        passed: How often each was passed.
        occurrences: At most so many passages of a point; 0 for all.
    """
    for point, count in sorted(passed.items()):
        for occurrence in range(1, min(count, occurrences or count) + 1):
            for effect in effects_at(point):
                fault = Fault(point=point, occurrence=occurrence, effect=effect)
                yield Planned(scenario=scenario, role=role, faults=(fault,))


def triggered(passed: Mapping[str, int]) -> list[Planned]:
    """Faults where a worker comes only after another: the broker is away and comes back."""
    publish = next(point for point in sorted(passed) if point.startswith(Kind.PUBLISH))
    away = Fault(point=publish, occurrence=1, effect=Effect.REDIS_ERROR)
    return [
        Planned(
            scenario="turn",
            role="worker",
            faults=(away, Fault(point="script hasten", occurrence=1, effect=effect)),
        )
        for effect in EFFECTS[Kind.SCRIPT]
    ]


def pairs(plans: Sequence[Planned], count: int, seed: int) -> list[Planned]:
    """A sample of two faults in one run, of one role; the second may never be reached."""
    chance = random.Random(seed)
    found: list[Planned] = []
    while plans and len(found) < count:
        first, second = chance.choice(plans), chance.choice(plans)
        if (first.scenario, first.role) == (second.scenario, second.role) and first != second:
            faults = (*first.faults, *second.faults)
            found.append(Planned(scenario=first.scenario, role=first.role, faults=faults))
    return found


def sample(plans: Iterable[Planned], count: int, seed: int) -> list[Planned]:
    """As many as wanted, spread over the points: each once before any twice.

    The same seed and code give the same sample.
    """
    by_point: dict[str, list[Planned]] = {}
    for plan in plans:
        by_point.setdefault(f"{plan.role} {plan.faults[0].point}", []).append(plan)
    chance = random.Random(seed)
    for of_point in by_point.values():
        chance.shuffle(of_point)
    points = sorted(by_point, key=lambda point: zlib.crc32(f"{seed} {point}".encode()))
    found: list[Planned] = []
    while len(found) < count and any(by_point.values()):
        found += [by_point[point].pop() for point in points if by_point[point]]
    return found[:count]
