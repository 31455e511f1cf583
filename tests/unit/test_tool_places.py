"""Tool threads that hang: the worker leaves turns to others, and ends when it could only wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from agentapi.tools.threads import limit_tool_threads, run_in_tool_thread, tool_threads
from tests.faults import until
from tests.logged import logged
from workers.upkeep.tool_places import ToolPlaces

WAIT = 30


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    limit_tool_threads(made, 2)
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


def hang(loop: asyncio.AbstractEventLoop) -> threading.Event:
    """Take a place until the event is set."""
    go = threading.Event()
    taken = tool_threads(loop).taken
    asyncio.run_coroutine_threadsafe(run_in_tool_thread(lambda: go.wait(WAIT)), loop)
    until(lambda: tool_threads(loop).taken > taken)
    return go


def test_places_are_stuck_while_none_becomes_free(loop: asyncio.AbstractEventLoop) -> None:
    first = hang(loop)
    assert (tool_threads(loop).places, tool_threads(loop).stuck) == (2, 0)
    second = hang(loop)
    until(lambda: tool_threads(loop).stuck > 0)
    third = threading.Event()
    waiting = asyncio.run_coroutine_threadsafe(run_in_tool_thread(lambda: third.wait(WAIT)), loop)
    released = time.monotonic()
    first.set()

    def began() -> float:
        now = time.monotonic()
        stuck = tool_threads(loop).stuck
        return now - stuck if stuck else 0.0

    # The one that waited takes the place: the time begins again.
    until(lambda: began() >= released)
    third.set()
    assert waiting.result(WAIT)
    assert tool_threads(loop).stuck == 0
    second.set()
    until(lambda: tool_threads(loop).taken == 0)


def test_a_thread_that_cannot_be_started_takes_no_place(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(5):
        failed = asyncio.run_coroutine_threadsafe(run_in_tool_thread(time.time), loop)
        with pytest.raises(RuntimeError):
            failed.result(WAIT)
    monkeypatch.undo()
    works = asyncio.run_coroutine_threadsafe(run_in_tool_thread(lambda: 1), loop)
    assert works.result(WAIT) == 1


def test_a_worker_with_stuck_places_takes_nothing_and_ends_when_idle(
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("workers.upkeep.tool_places.STUCK_AFTER", 0.01)
    calls: list[str] = []
    idle = False
    places = ToolPlaces(
        loop=loop,
        idle=lambda: idle,
        end=lambda: calls.append("end"),
    )
    places.look()
    assert not places.hang
    first, second = hang(loop), hang(loop)
    until(lambda: tool_threads(loop).stuck > 0.01)
    places.look()
    assert (places.hang, calls) == (True, [])
    first.set()
    until(lambda: tool_threads(loop).stuck == 0)
    places.look()
    assert (places.hang, calls) == (False, [])
    third = hang(loop)
    until(lambda: tool_threads(loop).stuck > 0.01)
    idle = True
    for _ in range(3):
        places.look()
    assert calls == ["end"]
    words = [record.message.split()[0] for record in logged(caplog, "agentapi.tools")]
    assert words == ["tools.hang", "tools.free", "tools.hang", "worker.ends"]
    second.set()
    third.set()
