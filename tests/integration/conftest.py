"""Fleets that are closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from agentapi import Agent, Settings
from tests.integration.fleet import AGENTS, Busy, Fleet, go_on


@pytest.fixture
def make_fleet(settings_for: Callable[..., Settings]) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(*, agents: Sequence[Agent] = AGENTS, **overrides: Any) -> Fleet:
        made.append(Fleet(settings_for(shutdown_grace=0, watchdog=False, **overrides), agents))
        return made[-1]

    Busy.waits.clear()
    go_on.clear()
    yield make
    for fleet in made:
        fleet.close()
