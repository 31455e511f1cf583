"""Every test of this folder runs on both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from tests.conformance.stores import Bench, in_memory, on_redis

MakeBench: TypeAlias = Callable[..., Bench]


@pytest.fixture(params=["memory", "redis", "cluster"])
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
