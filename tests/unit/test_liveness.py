"""A process whose loop or store threads do not answer ends; one that is only slow does not."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from agentapi.supervision import Supervisor
from tests.faults import until
from workers.upkeep.liveness import Liveness, Probe, StoreThreads, bound, starved, threads_probe
from workers.upkeep.loop_thread import LoopThread

WAIT = 30


class Part:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.answers: list[Callable[[], None]] = []

    def ask(self, answer: Callable[[], None]) -> None:
        self.answers.append(answer)

    def answer(self) -> None:
        while self.answers:
            self.answers.pop()()


@pytest.fixture
def part() -> Part:
    return Part()


def died(part: Part, excused: Callable[[], bool] = lambda: False) -> tuple[Liveness, list[str]]:
    dead: list[str] = []
    probe = Probe(
        name="part", ask=part.ask, bound=10, excused=excused, where=lambda: "f.py, line 1"
    )
    return Liveness([probe], Supervisor(fatal=None), die=dead.append), dead


def test_a_part_that_answers_lives(part: Part) -> None:
    liveness, dead = died(part)
    for _ in range(100):
        for _ in range(9):
            liveness.look(1)
        part.answer()
    assert dead == []


def test_a_part_that_does_not_answer_ends_the_process(
    part: Part, caplog: pytest.LogCaptureFixture
) -> None:
    liveness, dead = died(part)
    for _ in range(3):
        liveness.look(1)
    assert liveness.responsive()
    for _ in range(7):
        liveness.look(1)
    assert dead == []
    assert liveness.alive()
    assert not liveness.responsive()
    liveness.look(1)
    assert dead == ["part"]
    assert not liveness.alive()
    assert len(part.answers) == 1
    assert "process.stalled what=part seconds=10.0\nf.py, line 1" in caplog.text


def test_a_part_that_could_not_be_asked_is_asked_again(part: Part) -> None:
    liveness, dead = died(part)
    asked = part.ask

    def refuse(answer: Callable[[], None]) -> None:
        raise MemoryError

    [probe] = liveness._probes
    probe.ask = refuse
    with pytest.raises(MemoryError):
        liveness.look(1)
    probe.ask = asked
    for _ in range(20):
        liveness.look(1)
        part.answer()
    assert dead == []


def test_a_part_with_an_excuse_lives(part: Part) -> None:
    liveness, dead = died(part, excused=lambda: True)
    for _ in range(100):
        liveness.look(1)
    assert dead == []


def test_what_this_process_was_late_by_is_no_silence(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is slow, or the process was stopped for an hour."""
    monkeypatch.setattr("workers.upkeep.liveness.TICK", 0.001)
    looks = threading.Semaphore(0)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 3600
        return now

    dead: list[str] = []

    def ask(answer: Callable[[], None]) -> None:
        looks.release()
        part.ask(answer)

    def look(passed: float) -> None:
        answered(passed)
        looks.release()

    probe = Probe(name="part", ask=part.ask, bound=10)
    liveness = Liveness([probe], Supervisor(fatal=None), die=dead.append, clock=clock)
    answered, liveness.look = liveness.look, look  # type: ignore[method-assign]
    liveness.start()
    for _ in range(20):
        assert looks.acquire(timeout=WAIT)
    liveness.stop()
    assert dead == []
    # A thousandth of a second for each look, though an hour has passed.
    assert 0 < probe.silent < now / 3600


def test_a_part_that_gets_no_processor_is_not_silent(part: Part) -> None:
    waited = 0.0
    probe = Probe(name="part", ask=part.ask, bound=10, starved=lambda: waited)
    for _ in range(100):
        waited += 0.95
        assert probe.look(1)
    assert probe.silent == pytest.approx(99 * 0.05)
    # Blocked, on a machine with nothing else to do.
    for _ in range(6):
        probe.look(1)
    assert not probe.look(1)


def test_the_system_tells_how_long_a_thread_waited_for_a_processor() -> None:
    assert starved(threading.get_native_id()) >= 0
    assert starved(2**22 + 1) == 0


def test_the_bound_follows_the_lease() -> None:
    assert [bound(ttl) for ttl in (0.5, 5, 10, 60)] == [10, 10, 20, 120]


@pytest.fixture
def threads() -> Iterator[StoreThreads]:
    made = StoreThreads(2)
    yield made
    made.shutdown()


def test_threads_that_work_through_a_long_queue_live(threads: StoreThreads) -> None:
    go = threading.Semaphore(0)
    probe = threads_probe(threads, bound=3, excused=lambda: False, where=str)
    waiting = [threads.submit(go.acquire) for _ in range(200)]
    for _ in range(20):
        assert probe.look(1)
        assert probe.look(1)
        before = threads.done
        go.release()
        until(lambda before=before: threads.done > before, WAIT)  # type: ignore[misc]
    # All of them hang, and the question waits behind the queue.
    assert probe.look(1)
    assert [probe.look(1) for _ in range(4)][-1] is False
    go.release(200)
    for job in waiting:
        job.result(timeout=WAIT)


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(fatal=None)


@pytest.fixture
def loop(supervisor: Supervisor) -> Iterator[LoopThread]:
    made = LoopThread(supervisor)
    made.start()
    yield made
    made.stop()


def turns(loop: LoopThread) -> None:
    """The loop turns."""
    answered = threading.Event()
    loop.loop.call_soon_threadsafe(answered.set)
    assert answered.wait(WAIT)


def test_the_loop_goes_on_whatever_leaves_a_task_or_a_callback(
    loop: LoopThread, supervisor: Supervisor
) -> None:
    async def task(error: type[BaseException]) -> None:
        raise error

    async def start(error: type[BaseException]) -> None:
        asyncio.get_running_loop().background = asyncio.create_task(task(error))  # type: ignore[attr-defined]

    def failed(times: int) -> None:
        until(lambda: supervisor.status()[0].failures == times, WAIT)
        turns(loop)

    asyncio.run_coroutine_threadsafe(start(SystemExit), loop.loop)
    failed(1)
    asyncio.run_coroutine_threadsafe(start(KeyboardInterrupt), loop.loop)
    failed(2)
    loop.loop.call_soon_threadsafe(sys.exit)
    failed(3)
    loop.loop.call_soon_threadsafe(loop.loop.stop)
    failed(4)


def test_an_error_that_nobody_fetches_is_told_of_without_its_text(
    loop: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    def callback() -> None:
        raise RuntimeError("what somebody said")

    loop.loop.call_soon_threadsafe(callback)
    turns(loop)
    assert "loop.unhandled error=RuntimeError" in caplog.text
    assert "somebody said" not in caplog.text


def test_where_the_loop_stands(loop: LoopThread) -> None:
    let_go = threading.Event()
    stuck = threading.Event()

    def hang_here() -> None:
        stuck.set()
        let_go.wait(WAIT)

    loop.loop.call_soon_threadsafe(hang_here)
    assert stuck.wait(WAIT)
    assert "hang_here" in loop.where()
    let_go.set()
