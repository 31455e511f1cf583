"""How text is gathered on its way to the events."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from agentapi.stores import Lease, NewEvent, TurnStore
from agentapi.turns import EventType
from workers.event_log import EventLog

Batch = tuple[Lease, int, Sequence[NewEvent]]


class Store:
    """Takes what is emitted."""

    def __init__(self) -> None:
        self.emitted: queue.Queue[Sequence[Batch]] = queue.Queue()

    def emit(self, batches: Sequence[Batch]) -> None:
        self.emitted.put(list(batches))

    def next(self) -> dict[str, str]:
        """The text of each turn in the next flush."""
        return {
            lease.turn_id: "".join(str(event.data["text"]) for event in events)
            for lease, _, events in self.emitted.get(timeout=10)
        }


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def log(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventLog]:
    monkeypatch.setattr("workers.event_log.FLUSH_INTERVAL", 600.0)
    log = EventLog(cast("TurnStore", store))
    log.start()
    yield log
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
