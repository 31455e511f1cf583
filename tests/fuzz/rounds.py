"""A round of examples of one target."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.rig import Rig
from tests.fuzz.target import Target

SLOW = 5.0
"""Seconds."""


def run_round(
    rig: Rig, target: Target, number: int | None, examples: int, tick: Callable[[], None]
) -> None:
    """Try examples; what fails is made smaller first.

    Args:
        rig: Where they run; renewed after each that fails.
        target: What to attack.
        number: The seed; None for the same examples every time.
        examples: How many.
        tick: Called before each.

    Raises:
        AssertionError: A promise is broken.
    """

    slow: list[tuple[Any, BaseException]] = []

    @settings(
        max_examples=examples,
        database=None,
        derandomize=number is None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.strategy())
    def attack(example: Any) -> None:
        if slow:
            # What fails by taking too long is not made smaller: each try would take as long.
            if example == slow[0][0]:
                raise slow[0][1]
            return
        tick()
        began = time.monotonic()
        try:
            target.attack(example)
        except BaseException as error:
            if time.monotonic() - began > SLOW:
                slow.append((example, error))
            rig.renew()
            raise

    with rig.watch.listening():
        (attack if number is None else seed(number)(attack))()
        target.settle()
