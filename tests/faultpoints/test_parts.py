"""How faults are planned, compiled in and carried out, without any process."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.faultpoints import injector as points
from tests.faultpoints.cell import Planned, Result
from tests.faultpoints.compiled import compile_in
from tests.faultpoints.effects import Effect, Fault, Unforeseen
from tests.faultpoints.matrix import Matrix, markdown
from tests.faultpoints.plans import pairs, sample, singles

SOURCE = '''
import asyncio


async def one():
    return 1


class Sums:
    async def two(self):
        """The sum."""
        return await one() + await one()

    async def apart(self):
        async with asyncio.timeout(5):
            task = asyncio.get_running_loop().create_task(one())
            return await task
'''


@pytest.fixture
def module() -> Iterator[Any]:
    """The source above with its points compiled in."""
    code, _ = compile_in("sums", SOURCE, "sums.py")
    made = ModuleType("sums")
    made.__dict__["__faults__"] = points
    exec(code, made.__dict__)
    points.injector.fired = os.open(os.devnull, os.O_WRONLY)
    yield made
    points.injector.disarm()
    os.close(points.injector.fired)


def test_points_are_named_by_what_they_wait_for() -> None:
    assert compile_in("sums", SOURCE, "sums.py")[1] == [
        "await sums.Sums.two: one",
        "await sums.Sums.two: one (2)",
        "await sums.Sums.apart: with asyncio.timeout",
        "hand-off sums.Sums.apart: asyncio.get_running_loop().create_task",
        "await sums.Sums.apart: task",
    ]


def fault(point: str, effect: Effect, occurrence: int = 1) -> Fault:
    return Fault(point=point, occurrence=occurrence, effect=effect)


async def test_without_a_plan_nothing_changes(module: Any) -> None:
    points.injector.arm([])
    assert await module.Sums().two() == 2
    assert await module.Sums().apart() == 1
    assert sum(points.injector.disarm().values()) == 5


async def test_a_fault_happens_at_its_occurrence(module: Any) -> None:
    points.injector.arm([fault("await sums.Sums.two: one (2)", Effect.EXCEPTION, 2)])
    assert await module.Sums().two() == 2
    with pytest.raises(Unforeseen):
        await module.Sums().two()
    assert await module.Sums().two() == 2


async def test_a_lost_answer_comes_after_the_work(module: Any) -> None:
    done: list[int] = []

    async def one() -> int:
        done.append(1)
        return 1

    module.one = one
    for effect in (Effect.LOST_ANSWER, Effect.TIMEOUT):
        points.injector.arm([fault("await sums.Sums.two: one", effect)])
        with pytest.raises(OSError):  # noqa: PT011
            await module.Sums().two()
    assert len(done) == 1


async def test_a_cancellation_is_the_tasks(module: Any) -> None:
    points.injector.arm([fault("await sums.Sums.apart: task", Effect.CANCEL)])
    task = asyncio.create_task(module.Sums().apart())
    await asyncio.wait([task])
    assert task.cancelled()


def test_what_a_point_does_inside_itself_is_no_point() -> None:
    points.injector.arm([])
    points.call_at("script claim", lambda: points.call_at("command GET", lambda: None), whole=True)
    assert points.injector.disarm() == {"script claim": 1}


def plan(point: str, effect: Effect = Effect.EXCEPTION) -> Planned:
    return Planned(scenario="turn", role="worker", faults=(fault(point, effect),))


def test_all_effects_of_a_kind_at_each_occurrence() -> None:
    plans = list(singles("turn", "worker", Counter({"step sweep": 3}), occurrences=2))
    assert len(plans) == 2 * 4
    assert {p.faults[0].effect for p in plans} == {
        *(Effect.KILL, Effect.EXCEPTION, Effect.BASE_EXCEPTION, Effect.HANG)
    }


def test_a_sample_takes_each_point_before_any_twice() -> None:
    passed = Counter({"script claim": 5, "script commit": 1, "step sweep": 1})
    plans = list(singles("turn", "worker", passed, occurrences=0))
    few = sample(plans, 4, seed=7)
    assert len({p.faults[0].point for p in few[:3]}) == 3
    assert few == sample(plans, 4, seed=7)
    assert len(sample(plans, 10_000, seed=7)) == len(plans)


def test_pairs_are_of_one_process() -> None:
    plans = [plan("script claim"), plan("script commit")]
    [both] = pairs(plans, 1, seed=1)
    assert {f.point for f in both.faults} == {"script claim", "script commit"}


def test_the_matrix_counts() -> None:
    matrix = Matrix()
    hit: list[dict[str, Any]] = [{"fault": "it", "thread": "agentapi-loop"}]
    for broken in ([], ["lost"]):
        matrix.add(Result(planned=plan("script claim"), fired=hit, broken=broken))
    matrix.add(Result(planned=plan("script claim", Effect.KILL)))
    text = markdown(matrix, "A run:")
    assert "1 points, 2 runs with one fault" in text
    assert "broken: **1**" in text
    assert "**1 of 2**" in text
