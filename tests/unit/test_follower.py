"""The producers' follower: what goes wrong with one turn's events harms nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, cast

import pytest

from agentapi.errors import AgentAPIError, LoginRefused, StoreFault, StoreUnavailable
from agentapi.stores import ProducerStore
from agentapi.turns import Event, EventType
from orchestrator.events import follower as follower_module
from orchestrator.events.follower import Delivery, EventFollower, Listener, Subscription

Read = Callable[[Mapping[str, int]], dict[str, list[Event]]]


class Streams:
    """The events of turns; each read goes through `before` first, which may raise."""

    def __init__(self) -> None:
        self.events_of: dict[str, list[Event]] = {}
        self.before: Callable[[Mapping[str, int]], None] = lambda _: None
        self._changed = threading.Condition()

    def emit(self, turn_id: str, kind: EventType = EventType.COMPLETED) -> None:
        with self._changed:
            events = self.events_of.setdefault(turn_id, [])
            events.append(Event(number=len(events), type=kind, data={}))
            self._changed.notify_all()

    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int
    ) -> dict[str, list[Event]]:
        self.before(cursors)
        with self._changed:
            if timeout > 0:
                self._changed.wait(0.02)
            return {
                turn_id: events[after + 1 :][:count]
                for turn_id, after in cursors.items()
                if len(events := self.events_of.get(turn_id, [])) > after + 1
            }

    def interrupt(self) -> None:
        with self._changed:
            self._changed.notify_all()


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def follower(streams: Streams) -> Iterator[EventFollower]:
    running = EventFollower(cast("ProducerStore", streams))
    yield running
    streams.before = lambda _: None
    running.close()


Arrived = SimpleQueue[Event | AgentAPIError]
Batch = Sequence[tuple[Subscription, Delivery]]


def into(arrived: Arrived) -> Listener:
    """A listener that puts events and errors there, one by one."""

    def take(batch: Batch) -> None:
        for _, delivery in batch:
            for what in [delivery] if isinstance(delivery, AgentAPIError) else delivery:
                arrived.put(what)

    return take


def follow(follower: EventFollower, turn_id: str, after: int = -1) -> Arrived:
    arrived: Arrived = SimpleQueue()
    follower.subscribe(turn_id, after, into(arrived))
    return arrived


class Panic(BaseException):
    """As of an extension module."""


@pytest.mark.parametrize("error", [RuntimeError("boom"), Panic(), SystemExit(), MemoryError()])
def test_an_error_that_nobody_expected_is_survived(
    streams: Streams, follower: EventFollower, error: BaseException
) -> None:
    failures = [error] * 2

    def fail(cursors: Mapping[str, int]) -> None:
        if failures:
            raise failures.pop()

    streams.before = fail
    arrived = follow(follower, "a")
    streams.emit("a")
    assert isinstance(arrived.get(timeout=20), Event)
    assert not failures


@pytest.mark.parametrize("error", [ValueError("no event"), StoreFault("WRONGTYPE")])
def test_a_turn_that_cannot_be_read_ends_its_own_subscription_only(
    streams: Streams, follower: EventFollower, error: Exception
) -> None:
    def fail(cursors: Mapping[str, int]) -> None:
        if "bad" in cursors:
            raise error

    good, bad, again = (follow(follower, turn_id) for turn_id in ("good", "bad", "bad"))
    streams.before = fail
    for waiting in (bad, again):
        fault = waiting.get(timeout=20)
        assert isinstance(fault, StoreFault)
    streams.emit("good")
    event = good.get(timeout=20)
    assert isinstance(event, Event)
    later = follow(follower, "later")
    streams.emit("later")
    assert isinstance(later.get(timeout=20), Event)


def test_an_error_that_stays_is_told_to_those_who_wait(
    streams: Streams, follower: EventFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "MAX_FAILURES", 2)

    def fail(cursors: Mapping[str, int]) -> None:
        if len(cursors) > 1:
            raise RuntimeError("too many at once")

    streams.before = fail
    waiting = [follow(follower, turn_id) for turn_id in ("a", "b")]
    for arrived in waiting:
        assert isinstance(arrived.get(timeout=20), StoreFault)


def test_a_subscriber_that_cannot_take_events_harms_no_other(
    streams: Streams, follower: EventFollower
) -> None:
    def refuse(batch: Batch) -> None:
        raise RuntimeError("Event loop is closed")

    follower.subscribe("a", -1, refuse)
    arrived = follow(follower, "a")
    streams.emit("a")
    assert isinstance(arrived.get(timeout=20), Event)


def test_a_refused_password_is_waited_for_a_while(
    streams: Streams, follower: EventFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_AWAY_DELAY", 0.01)
    tries = threading.Semaphore(0)

    def refuse(cursors: Mapping[str, int]) -> None:
        tries.release()
        raise LoginRefused("wrong password")

    streams.before = refuse
    arrived = follow(follower, "a")
    for _ in range(5):
        assert tries.acquire(timeout=20)
    assert arrived.empty()
    streams.before = lambda _: None
    streams.emit("a")
    assert isinstance(arrived.get(timeout=20), Event)

    monkeypatch.setattr(follower_module, "MAX_LOGIN_REFUSAL", 0)
    streams.before = refuse
    for _ in range(2):
        # Whoever comes later is told too.
        told = follow(follower, "b").get(timeout=20)
        assert isinstance(told, LoginRefused)


def test_a_redis_that_is_away_is_waited_for(
    streams: Streams, follower: EventFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_AWAY_DELAY", 0.01)
    monkeypatch.setattr(follower_module, "MAX_LOGIN_REFUSAL", 0)
    tries = threading.Semaphore(0)

    def away(cursors: Mapping[str, int]) -> None:
        tries.release()
        raise StoreUnavailable("away")

    streams.before = away
    arrived = follow(follower, "a")
    for _ in range(5):
        assert tries.acquire(timeout=20)
    assert arrived.empty()
    streams.before = lambda _: None
    streams.emit("a")
    assert isinstance(arrived.get(timeout=20), Event)


def test_a_subscription_that_could_not_begin_is_not_kept(
    streams: Streams, follower: EventFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = follow(follower, "a")

    def away() -> None:
        raise StoreUnavailable("away")

    reading = threading.Event()
    streams.before = lambda _: reading.set()
    assert reading.wait(20)
    monkeypatch.setattr(streams, "interrupt", away)
    refused: list[Any] = []
    while not refused:
        # Between two reads nobody needs to be interrupted.
        try:
            follower.subscribe("b", -1, refused.extend)
        except AgentAPIError as error:
            refused.append(error)
    streams.emit("b")
    streams.emit("a")
    assert isinstance(waiting.get(timeout=20), Event)
    monkeypatch.undo()


def test_an_event_that_was_not_taken_comes_again(streams: Streams, follower: EventFollower) -> None:
    arrived: Arrived = SimpleQueue()
    broken = True

    def deliver(batch: Batch) -> None:
        nonlocal broken
        if broken:
            broken = False
            raise KeyboardInterrupt
        into(arrived)(batch)

    streams.emit("one", EventType.STARTED)
    streams.emit("one")
    follower.subscribe("one", -1, deliver)
    numbers = [arrived.get(timeout=20) for _ in range(2)]
    assert [event.number for event in numbers if isinstance(event, Event)] == [0, 1]


def test_who_joins_during_a_read_misses_nothing(streams: Streams, follower: EventFollower) -> None:
    for _ in range(2):
        streams.emit("one", EventType.STEP)
    reading, go_on = threading.Event(), threading.Event()

    def before(cursors: Mapping[str, int]) -> None:
        # The first read is of who has all events so far.
        if cursors == {"one": 1}:
            reading.set()
            assert go_on.wait(20)

    streams.before = before
    early = follow(follower, "one", 1)
    assert reading.wait(20)
    late = follow(follower, "one")
    streams.emit("one")
    go_on.set()
    got = [late.get(timeout=20) for _ in range(3)]
    assert [event.number for event in got if isinstance(event, Event)] == [0, 1, 2]
    last = early.get(timeout=20)
    assert isinstance(last, Event)
    assert last.number == 2


def test_one_read_is_handed_over_in_one_call(streams: Streams, follower: EventFollower) -> None:
    calls: SimpleQueue[set[str]] = SimpleQueue()

    def take(batch: Batch) -> None:
        calls.put({found.turn_id for found, _ in batch})

    go_on = threading.Event()

    def before(cursors: Mapping[str, int]) -> None:
        # The reads before the second turn came find nothing, and are tried again.
        if len(cursors) < 2:
            raise StoreUnavailable("away")
        assert go_on.wait(20)

    streams.before = before
    for turn_id in ("a", "b"):
        follower.subscribe(turn_id, -1, take)
        streams.emit(turn_id)
    go_on.set()
    assert calls.get(timeout=20) == {"a", "b"}


def test_events_come_in_pages(streams: Streams) -> None:
    paged = EventFollower(cast("ProducerStore", streams), page=2)
    for _ in range(4):
        streams.emit("a", EventType.STEP)
    streams.emit("a")
    sizes: SimpleQueue[int] = SimpleQueue()
    paged.subscribe("a", -1, lambda batch: sizes.put(len(cast("list[Event]", batch[0][1]))))
    assert [sizes.get(timeout=20) for _ in range(3)] == [2, 2, 1]
    paged.close()


def test_those_who_come_during_a_read_interrupt_it_once(
    streams: Streams, follower: EventFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def before(cursors: Mapping[str, int]) -> None:
        reading.set()
        assert go_on.wait(20)

    streams.before = before
    first = follow(follower, "a")
    assert reading.wait(20)
    interrupts: list[None] = []
    monkeypatch.setattr(streams, "interrupt", lambda: interrupts.append(None))
    others = [follow(follower, turn_id) for turn_id in ("b", "c", "d")]
    assert len(interrupts) == 1
    for turn_id in "abcd":
        streams.emit(turn_id)
    go_on.set()
    for arrived in (first, *others):
        assert isinstance(arrived.get(timeout=20), Event)
    monkeypatch.undo()
