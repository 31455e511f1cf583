"""How text is gathered on its way to the events."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from agentapi.errors import StoreUnavailable
from agentapi.stores import Lease, NewEvent, WorkerStore
from agentapi.supervision import Supervisor
from agentapi.turns import EventType
from workers.turns.events import EventLog

Batch = tuple[Lease, int, Sequence[NewEvent]]


class Store:
    """Takes what is emitted."""

    def __init__(self) -> None:
        self.emitted: queue.Queue[Sequence[Batch]] = queue.Queue()
        self.refused: dict[str, BaseException] = {}
        self.away: set[str] = set()

    def emit(self, batches: Sequence[Batch]) -> list[int]:
        for lease, _, _ in batches:
            if lease.turn_id in self.refused:
                raise self.refused[lease.turn_id]
        taken = [batch for batch in batches if batch[0].turn_id not in self.away]
        self.emitted.put(taken)
        return [n for n, (lease, *_) in enumerate(batches) if lease.turn_id in self.away]

    def next(self) -> dict[str, str]:
        """The text of each turn in the next flush."""
        return {
            lease.turn_id: "".join(str(event.data["text"]) for event in events)
            for lease, _, events in self.emitted.get(timeout=30)
        }


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(fatal=None)


class Waited(threading.Event):
    """Says when somebody begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.begun.set()
        return super().wait(timeout)


@pytest.fixture
def log(
    store: Store, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EventLog]:
    monkeypatch.setattr("workers.turns.events.FLUSH_INTERVAL", 600.0)
    log = EventLog(cast("WorkerStore", store), supervisor)
    log._first_piece = first_piece = Waited()
    log.start()
    # Its first flush, of nothing, is over: none that a test does not expect can follow.
    assert first_piece.begun.wait(30)
    yield log
    monkeypatch.undo()
    log.stop()


def lease(turn_id: str) -> Lease:
    more: dict[str, Any] = {"epoch": 1, "token": "t", "generation": 0}
    return Lease(conversation_id="c", turn_id=turn_id, **more)


def test_the_first_piece_of_each_turn_waits_for_nobody(store: Store, log: EventLog) -> None:
    log.add(lease("one"), EventType.DELTA, {"text": "a"})
    assert store.next() == {"one": "a"}
    log.add(lease("one"), EventType.DELTA, {"text": "b"})
    log.add(lease("one"), EventType.DELTA, {"text": "c"})
    log.add(lease("two"), EventType.DELTA, {"text": "x"})
    assert store.next() == {"one": "bc", "two": "x"}
    log.forget(lease("two"))
    log.add(lease("two"), EventType.DELTA, {"text": "y"})
    assert store.next() == {"two": "y"}
    assert store.emitted.empty()


def test_pieces_that_follow_are_gathered_until_the_end(store: Store, log: EventLog) -> None:
    log.add(lease("one"), EventType.DELTA, {"text": "a"})
    assert store.next() == {"one": "a"}
    for text in "bcd":
        log.add(lease("one"), EventType.DELTA, {"text": text})
    assert store.emitted.empty()
    log.flush()
    assert store.next() == {"one": "bcd"}


def test_a_shard_that_is_away_delays_its_own_turns_only(store: Store, log: EventLog) -> None:
    store.away = {"two"}
    with log._flushing:
        log.add(lease("one"), EventType.DELTA, {"text": "a"})
        log.add(lease("two"), EventType.DELTA, {"text": "b"})
    log.flush(lease("one"))
    assert store.next() == {"one": "a"}
    with pytest.raises(StoreUnavailable):
        log.flush(lease("two"))
    store.away.clear()
    log.flush(lease("two"))
    # Behind what was tried meanwhile, here or in the thread.
    while not (found := store.next()):
        pass
    assert found == {"two": "b"}


HIGH = "\ud83d"


def test_an_event_that_cannot_be_written_is_its_own_turns_fault(
    store: Store, log: EventLog
) -> None:
    with pytest.raises(TypeError):
        log.add(lease("one"), EventType.DELTA, {"text": f"a{HIGH}"})
    log.add(lease("two"), EventType.DELTA, {"text": "x"})
    assert store.next() == {"two": "x"}


def test_a_batch_that_is_refused_keeps_no_other(
    store: Store, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    store.refused["one"] = RuntimeError("what somebody said")
    for turn in ("zero", "one", "two"):
        with log._flushing:
            log.add(lease(turn), EventType.DELTA, {"text": "x"})
    log.flush()
    shown: dict[str, str] = {}
    while not store.emitted.empty():
        shown |= store.next()
    assert shown == {"zero": "x", "two": "x"}
    assert "events.dropped conversation_id=c turn_id=one error=RuntimeError" in caplog.text
    assert "somebody said" not in caplog.text
    log.flush()
    assert store.emitted.empty()


def test_events_wait_for_a_store_that_is_away(store: Store, log: EventLog) -> None:
    store.refused["one"] = StoreUnavailable("away")
    with log._flushing:
        log.add(lease("one"), EventType.DELTA, {"text": "x"})
    with pytest.raises(StoreUnavailable):
        log.flush()
    store.refused.clear()
    log.flush()
    assert store.next() == {"one": "x"}


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


def test_the_thread_outlives_what_nobody_expected(
    store: Store, log: EventLog, supervisor: Supervisor
) -> None:
    store.refused["one"] = Panic()
    log.add(lease("one"), EventType.DELTA, {"text": "x"})
    deadline = time.monotonic() + 30
    while supervisor.status()[0].failures == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.refused.clear()
    # What was kept is sent without a further event.
    assert store.next() == {"one": "x"}


def test_events_on_their_way_are_always_visible(store: Store, supervisor: Supervisor) -> None:
    log = EventLog(cast("WorkerStore", store), supervisor)
    seen: list[bool] = []

    class Watched(dict[Any, Any]):
        def clear(self) -> None:
            seen.append(bool(log._unsent))
            super().clear()

    log.add(lease("one"), EventType.DELTA, {"text": "a"})
    log._pending = cast("Any", Watched(log._pending))
    log.flush()
    assert seen == [True]
    assert store.next() == {"one": "a"}
