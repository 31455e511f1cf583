"""Background work outlives errors that nobody expected, and is seen."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from agentapi import supervision
from agentapi.supervision import MAX_FAILURES, Service, Supervisor
from tests.logged import logged

WAIT = 30


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_DELAY", 0.0)


@pytest.mark.parametrize("error", [RuntimeError, Panic, SystemExit, KeyboardInterrupt])
def test_a_thread_goes_on_after_any_error(error: type[BaseException]) -> None:
    rounds = threading.Semaphore(0)
    failed = threading.Event()

    def work(service: Service) -> None:
        if not failed.is_set():
            failed.set()
            raise error
        while not service.wait(0.001):
            service.progress()
            rounds.release()

    supervisor = Supervisor(fatal=None)
    service = supervisor.thread("worker", work)
    service.start()
    assert rounds.acquire(timeout=WAIT)
    [status] = supervisor.status()
    assert (status.running, status.failures, status.in_a_row) == (True, 1, 0)
    assert status.last_error == error.__name__
    assert service.stop()
    assert not service.status().running


def test_work_that_returns_unasked_is_started_again() -> None:
    again = threading.Semaphore(0)
    service = Supervisor(fatal=None).thread("worker", lambda _: again.release())
    service.start()
    for _ in range(3):
        assert again.acquire(timeout=WAIT)
    assert service.stop()
    assert service.status().failures >= 2


def test_work_that_cannot_go_on_ends_the_process() -> None:
    told: list[str] = []
    ended, checked = threading.Event(), threading.Event()

    def fatal(name: str) -> None:
        told.append(name)
        ended.set()
        checked.wait(WAIT)

    def work(_: Service) -> None:
        raise RuntimeError

    service = Supervisor(fatal=fatal).thread("worker", work)
    service.start()
    assert ended.wait(WAIT)
    assert told == ["worker"]
    assert service.status().in_a_row == MAX_FAILURES
    checked.set()
    assert service.stop()


def test_progress_forgives() -> None:
    told: list[str] = []
    service = Supervisor(fatal=told.append).watched("worker")
    for _ in range(3 * MAX_FAILURES):
        service.failed(RuntimeError())
        service.progress()
    assert told == []


def test_an_error_is_logged_once_with_its_traceback_and_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Supervisor(fatal=None).watched("worker")
    said = "what a person said"
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            try:
                raise RuntimeError(said)
            except RuntimeError as error:
                service.failed(error)
    assert len(logged(caplog, "agentapi.supervision")) == 3
    assert caplog.text.count('test_supervision.py", line') == 1
    assert said not in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, Panic, SystemExit])
async def test_a_task_goes_on_after_any_error(error: type[BaseException]) -> None:
    tries = 0
    running = asyncio.Event()

    async def work(service: Service) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        service.progress()
        running.set()
        await asyncio.Event().wait()

    supervisor = Supervisor(fatal=None)
    service = supervisor.task("follower", work)
    service.start()
    await asyncio.wait_for(running.wait(), WAIT)
    await service.stop()
    assert service.status().failures == 1
