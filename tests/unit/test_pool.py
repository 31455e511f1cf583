"""The workers' pool: whatever fails, each job is answered once and leaves its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest
from billiard.einfo import ExceptionInfo

from agentapi.broker.wire import TASK_NAME
from workers.celery_ext.outcomes import (
    NothingToDo,
    TaskBroken,
    Told,
    TurnFailed,
    TurnGoesOn,
    TurnRevoked,
)
from workers.celery_ext.pool import JSON, TurnPool, to_tell
from workers.turns.claimed import ClaimedTurn
from workers.turns.decision import HandBack
from workers.turns.suspect import SuspectTurn


class Panic(BaseException):
    """As of an extension module."""


UNEXPECTED = [RuntimeError("boom"), Panic(), SystemExit(3), MemoryError()]


class FakeRuntime:
    """A runtime whose every turn completes, unless a step is told to raise."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(2)
        self.faults: dict[str, BaseException] = {}
        self.decisions: list[Any] = []
        self.kind: Any = ClaimedTurn
        self.summary = {"status": "completed"}
        self.isolation = SimpleNamespace(run=self.run_apart)
        self.open = True
        self.woken = threading.Semaphore(0)

    def fail(self, step: str) -> None:
        if error := self.faults.pop(step, None):
            raise error

    def claim(self, conversation_id: str, turn_id: str, agent: str, job: int) -> Any:
        self.fail("claim")
        if self.kind is dict:
            return self.summary
        return object.__new__(self.kind)

    def run(self, turn: Any, then: Callable[[Any], None]) -> None:
        self.fail("run")
        then("an ending")

    def run_apart(self, turn: Any, then: Callable[[Any], None]) -> None:
        self.fail("run_apart")
        then(self.summary)

    def close(self, turn: Any, decision: Any) -> Any:
        self.decisions.append(decision)
        self.fail("close")
        return self.summary

    def accepting(self) -> bool:
        return self.open

    def wake_consumer(self) -> None:
        self.woken.release()


class Request:
    """A task as Celery hands it over, and what Celery is told."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self.answers: SimpleQueue[Any] = SimpleQueue()

    def accept(self, number: int, at: float) -> None:
        self._runtime.fail("accept")

    def trace(self, name: str, task_id: str, request: Any, body: Any, *_: Any) -> Any:
        self._runtime.fail("trace")
        try:
            tell = to_tell.get()
            return 0, tell() if tell is not None else "another task's", 0.0
        except Exception:
            return 1, ExceptionInfo(), 0.0  # type: ignore[no-untyped-call]

    def done(self, answer: Any) -> None:
        self.answers.put(answer)
        self._runtime.fail("done")

    def apply(self, pool: TurnPool, body: bytes = b'[["c", "t", "a"], {}, {}]') -> Request:
        pool.on_apply(
            self.trace,
            (TASK_NAME, "an id", {}, body, JSON, "utf-8"),
            callback=self.done,
            accept_callback=self.accept,
        )
        return self

    def answer(self) -> Any:
        failed, result, runtime = self.answers.get(timeout=20)
        assert runtime >= 0
        if not failed:
            return result
        error = result.exception
        return getattr(error, "exc", None) or error


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    made = FakeRuntime()
    yield made
    made.threads.shutdown()


@pytest.fixture
def pool(runtime: FakeRuntime) -> TurnPool:
    made = TurnPool(limit=2, app=SimpleNamespace(runtime=runtime))  # type: ignore[no-untyped-call]
    made.on_start()
    return made


def empty(pool: TurnPool) -> None:
    """Nobody keeps a place, and the next job runs."""
    with pool._changed:
        assert pool._changed.wait_for(lambda: pool._in_flight == 0, 20)
    runtime = cast("FakeRuntime", pool.app.runtime)
    runtime.kind, runtime.summary = ClaimedTurn, {"status": "completed"}
    for _ in range(5):
        assert Request(runtime).apply(pool).answer() == {"status": "completed"}


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
@pytest.mark.parametrize("step", ["accept", "done"])
def test_what_celery_itself_raises_costs_the_turn_nothing(
    pool: TurnPool, runtime: FakeRuntime, step: str, error: BaseException
) -> None:
    runtime.faults[step] = error
    request = Request(runtime).apply(pool)
    assert request.answer() == {"status": "completed"}
    empty(pool)
    assert request.answers.empty()


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
@pytest.mark.parametrize("step", ["claim", "close", "trace", "run_apart"])
def test_what_nobody_expected_is_a_broken_task_and_tells_no_content(
    pool: TurnPool, runtime: FakeRuntime, step: str, error: BaseException
) -> None:
    runtime.faults[step] = error
    runtime.kind = SuspectTurn if step == "run_apart" else ClaimedTurn
    answer = Request(runtime).apply(pool).answer()
    assert isinstance(answer, TaskBroken)
    assert repr(answer) == f"TaskBroken({type(error).__name__!r})"
    empty(pool)


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
def test_a_turn_that_cannot_be_carried_out_is_handed_back(
    pool: TurnPool, runtime: FakeRuntime, error: BaseException
) -> None:
    runtime.faults["run"] = error
    Request(runtime).apply(pool).answer()
    assert runtime.decisions == [HandBack()]
    empty(pool)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"[1, 2, 3]", b'[["c"], {}, {}]', b"[[NaN], {}, {}]", b"\xff"]
)
def test_a_message_that_is_no_wake_up_is_answered(
    pool: TurnPool, runtime: FakeRuntime, body: bytes
) -> None:
    assert isinstance(Request(runtime).apply(pool, body).answer(), TaskBroken)
    empty(pool)


def test_a_worker_that_has_ended_takes_nothing_and_hangs_nowhere(
    pool: TurnPool, runtime: FakeRuntime
) -> None:
    runtime.threads.shutdown()
    requests = [Request(runtime).apply(pool) for _ in range(5)]
    assert pool._in_flight == 0
    assert all(request.answers.empty() for request in requests)


def test_there_is_room_for_as_many_as_can_begin(pool: TurnPool, runtime: FakeRuntime) -> None:
    hold = threading.Event()
    begun = threading.Semaphore(0)
    claim = runtime.claim

    def wait(*args: Any, **options: Any) -> Any:
        begun.release()
        assert hold.wait(20)
        return claim(*args, **options)

    runtime.claim = wait  # type: ignore[method-assign]
    assert pool.room() == 2
    requests = [Request(runtime).apply(pool) for _ in range(3)]
    for _ in range(2):
        assert begun.acquire(timeout=20)
    assert pool.room() == 0
    hold.set()
    for request in requests:
        request.answer()
    # The consumer waits for the broker only while there is room: it is told of it.
    assert runtime.woken.acquire(timeout=20)
    with pool._changed:
        assert pool._changed.wait_for(lambda: pool._in_flight == 0, 20)
    assert pool.room() == 2
    runtime.open = False
    assert pool.room() == 0


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("failed", TurnFailed),
        ("cancelled", TurnRevoked),
        ("parked", TurnGoesOn),
        ("handed_back", TurnGoesOn),
        ("lost", TurnGoesOn),
        ("store_unavailable", TurnGoesOn),
    ],
)
def test_what_became_of_a_turn_is_told(
    pool: TurnPool, runtime: FakeRuntime, status: str, told: type[Told]
) -> None:
    runtime.summary = {"status": status}
    answer = Request(runtime).apply(pool).answer()
    assert type(answer) is told
    assert answer.summary == {"status": status}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("completed", NothingToDo),
        ("failed", NothingToDo),
        ("running", NothingToDo),
        ("missing", NothingToDo),
        ("cancelled", TurnRevoked),
        ("passed_on", TurnGoesOn),
        ("store_unavailable", TurnGoesOn),
    ],
)
def test_a_wake_up_that_won_no_claim_is_told(
    pool: TurnPool, runtime: FakeRuntime, status: str, told: type[Told]
) -> None:
    runtime.kind, runtime.summary = dict, {"status": status}
    assert type(Request(runtime).apply(pool).answer()) is told
