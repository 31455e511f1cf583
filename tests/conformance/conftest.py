"""Every test of this folder runs on both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import pytest

from tests.conformance.stores import Bench, in_memory, on_redis

MakeBench: TypeAlias = Callable[..., Bench]


ON_CLUSTER: Final = frozenset({"backlog", "cancel_and_sweep", "ends", "hasten", "past", "telling"})
"""Modules whose calls cross slots. They always run on a cluster too; the others do so only with
``--whole-cluster``, because each of their calls uses one slot."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the stores for a test."""
    if "make_bench" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition(".test_")[2]
        whole = metafunc.config.getoption("--whole-cluster")
        cluster = ["cluster"] if whole or module in ON_CLUSTER else []
        metafunc.parametrize("make_bench", ["memory", "redis", *cluster], indirect=True)


@pytest.fixture
def make_bench(request: pytest.FixtureRequest) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(**overrides: Any) -> Bench:
        if request.param == "memory":
            bench = in_memory(**overrides)
        else:
            bench = on_redis(request.getfixturevalue(f"{request.param}_url"), **overrides)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.store.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()
