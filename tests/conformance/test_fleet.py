"""What the workers of a fleet agree on."""

from __future__ import annotations

import pytest

from agentapi.stores.in_memory import sweep as in_memory
from agentapi.stores.redis import sweep as in_redis
from tests.conformance.stores import Bench


@pytest.fixture
def _nobody_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every start counts as long ago."""
    for module in (in_memory, in_redis):
        monkeypatch.setattr(module, "NEW_FLEET", 0.0)


def test_the_first_worker_says_how_many_queues_there_are(bench: Bench) -> None:
    assert [bench.store.agree(8) for _ in range(2)] == [8, 8]
    # Nobody is elected yet, but the first worker has only just started.
    assert bench.store.agree(16) == 8
    assert bench.store.agree(8) == 8


@pytest.mark.usefixtures("_nobody_is_new")
def test_the_number_of_queues_stays_while_a_worker_lives(bench: Bench) -> None:
    assert bench.store.agree(8) == 8
    bench.store.elect("one", ttl=60)
    assert [bench.store.agree(number) for number in (16, 8, 4)] == [8, 8, 8]
    bench.store.resign("one")
    assert bench.store.agree(4) == 4
    bench.store.elect("one", ttl=60)
    assert bench.store.agree(8) == 4


@pytest.mark.usefixtures("_nobody_is_new")
def test_a_fleet_that_was_killed_gives_way(bench: Bench) -> None:
    assert bench.store.agree(8) == 8
    bench.store.elect("one", ttl=0.05)
    while bench.store.agree(16) != 16:
        pass
    assert bench.store.agree(16) == 16
