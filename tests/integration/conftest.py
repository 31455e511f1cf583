"""Fleets that are closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentapi import Settings
from tests.integration.fleet import Busy, Fleet


@pytest.fixture
def make_fleet(settings_for: Callable[..., Settings]) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(**overrides: Any) -> Fleet:
        made.append(Fleet(settings_for(shutdown_grace=0, watchdog=False, **overrides)))
        return made[-1]

    Busy.waits.clear()
    yield make
    for fleet in made:
        fleet.close()
