"""The pool loses no job, whatever Celery's code or ours raises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from agentapi.wire import TASK_NAME
from workers.claimed import ClaimedTurn, Outcome
from workers.outcomes import Told
from workers.pool import JSON, TurnPool, to_tell

WAIT = 30


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


class Runtime:
    """Claims each turn and gives it back; carries it out as it is told."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(2)
        self.ended: list[Outcome] = []
        self.loop_is_gone = False
        self.wake_consumer: Callable[[], object] = lambda: None

    def begin(self, *_: Any, job: int) -> Any:
        return ClaimedTurn.__new__(ClaimedTurn)

    def carry_out(self, turn: ClaimedTurn, then: Callable[[Outcome], None]) -> None:
        if self.loop_is_gone:
            raise RuntimeError("Event loop is closed")
        then(None)

    def end(self, turn: ClaimedTurn, outcome: Outcome) -> dict[str, Any]:
        self.ended.append(outcome)
        return {"status": "handed_back"}


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    made = Runtime()
    yield made
    made.threads.shutdown()


@pytest.fixture
def pool(runtime: Runtime) -> TurnPool:
    make: Any = TurnPool
    made: TurnPool = make(1, app=SimpleNamespace(runtime=runtime))
    made.on_start()
    return made


def tracer(*_: Any, **__: Any) -> tuple[int, str, float]:
    """Celery's: calls the task's function."""
    tell = to_tell.get()
    assert tell is not None
    try:
        return (0, str(tell()), 0.0)
    except Told as told:
        return (1, repr(told), 0.0)


def broken_tracer(*_: Any, **__: Any) -> tuple[int, str, float]:
    raise Panic


def run(pool: TurnPool, target: Callable[..., Any], callback: Callable[[Any], None]) -> None:
    body = orjson.dumps([["c", "t", "a"], {}, {}])
    args: tuple[Any, ...] = (TASK_NAME, "t", {}, body, JSON, "utf-8")
    pool.on_apply(target, args, callback=callback, accept_callback=lambda *_: None)


def works(pool: TurnPool) -> bool:
    """Whether the pool, which has one place, carries a job out."""
    done = threading.Event()
    run(pool, tracer, lambda _: done.set())
    return done.wait(WAIT)


def test_a_tracer_that_raises_loses_neither_turn_nor_place(
    pool: TurnPool, runtime: Runtime
) -> None:
    run(pool, broken_tracer, lambda _: None)
    assert works(pool)
    assert len(runtime.ended) == 2


def test_a_callback_that_raises_loses_no_place(pool: TurnPool, runtime: Runtime) -> None:
    def callback(_: Any) -> None:
        raise Panic

    run(pool, tracer, callback)
    assert works(pool)
    assert len(runtime.ended) == 2


def test_a_turn_that_the_event_loop_does_not_take_is_handed_back(
    pool: TurnPool, runtime: Runtime
) -> None:
    runtime.loop_is_gone = True
    assert works(pool)
    assert runtime.ended == [None]
