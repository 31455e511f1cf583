"""Follows the events of any number of turns with one thread and one connection."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from agentapi.errors import AgentAPIError, LoginRefused, StoreFault, StoreUnavailable
from agentapi.logs import line
from agentapi.stores import ProducerStore
from agentapi.supervision import MAX_FAILURES, Service, Supervisor
from agentapi.turns import Event

log = logging.getLogger("agentapi.follower")

PAGE: Final = 500
"""Maximum number of events of one turn in one read."""

MAX_WAIT: Final = 5.0
"""Seconds that one read blocks. A lost interrupt delays a new subscription by this time."""

LATE_AFTER: Final = 2 * MAX_WAIT
"""Seconds beyond a read's maximum wait after which the thread counts as hung."""

_AWAY_DELAY: Final = 0.5
"""Seconds between two attempts while Redis is unreachable."""

MAX_LOGIN_REFUSAL: Final = 30.0
"""Seconds that Redis may refuse the password, for example while it is changed, before all waits
fail."""

PASSING_FAILURES: Final = 2
"""Consecutive unexpected errors after which the follower searches for the turn that causes them."""

_FEW: Final = 16
"""Maximum number of turns for which reads follow each other without a pause."""

_PAUSE_PER_TURN: Final = 20e-6
_MAX_PAUSE: Final = 0.01
"""Seconds between two reads of many turns. A read takes time for each turn even without new events,
so the pause lets one read return events of many turns."""

Delivery: TypeAlias = Sequence[Event] | AgentAPIError
"""New events of a turn, or why no more events will come."""

Listener: TypeAlias = Callable[[Sequence[tuple["Subscription", Delivery]]], None]
"""Receives the results of one read for all its subscriptions. Called in the follower's thread; must
not block."""


@dataclass(eq=False)
class Subscription:
    """A request for a turn's events after a number, each once, in order.

    Attributes:
        turn_id: The turn.
        after: Number of the last event that was handed over.
        listener: Receives the events. Subscriptions with equal listeners share one call for each
            read.
    """

    turn_id: str
    after: int
    listener: Listener


class EventFollower:
    """Reads the events of all subscriptions together, and hands each event to its subscribers.

    A failure of one turn's events ends only the subscriptions to that turn. An unexpected error is
    logged, and the work is retried.
    """

    def __init__(
        self, store: ProducerStore, supervisor: Supervisor | None = None, page: int = PAGE
    ) -> None:
        """Create a follower; `start`, or the first subscription, starts its thread.

        Args:
            store: Where the events are.
            supervisor: Keeps the thread running. The default suits a producer: it never ends the
                process, which belongs to the application.
            page: Maximum number of events of one turn to hand over at a time.
        """
        self._store = store
        self._page = page
        # By turn, so that finding the subscriptions of a read's events is fast.
        self._subscriptions: dict[str, list[Subscription]] = {}
        # Guards the subscriptions and flags. Never held while Redis is read or a listener is
        # called.
        self._changed = threading.Condition()
        self._started = False
        self._closed = False
        # Both are guarded by `_changed`: whether a read waits with an older set of turns, and
        # whether it was interrupted.
        self._reading = False
        self._interrupted = False
        self._away = False
        self._refused_since: float | None = None
        supervisor = supervisor or Supervisor(fatal=None)
        # One blocking read serves all turns. A connection for each would limit how many can be
        # followed.
        self._thread = supervisor.thread("agentapi-follower", self._run)

    @property
    def fresh(self) -> bool:
        """Whether the thread runs, and finished its last read within the time that a read may
        take."""
        status = self._thread.status()
        return status.running and status.idle < MAX_WAIT + LATE_AFTER

    def start(self) -> None:
        """Start the thread, once."""
        with self._changed:
            if not self._started:
                self._started = True
                self._thread.start()

    def subscribe(self, turn_id: str, after: int, listener: Listener) -> Subscription:
        """Start to deliver the turn's events whose number is above `after`.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        subscription = Subscription(turn_id, after, listener)
        try:
            if self.add(subscription):
                self.interrupt()
        except BaseException:
            self.unsubscribe(subscription)
            # The interrupt did not arrive, so the next subscriber must send one.
            raise
        return subscription

    def add(self, subscription: Subscription) -> bool:
        """Add a subscription, without waiting for anything.

        Returns:
            Whether the caller must call `interrupt`, because a read waits for other turns.
        """
        self.start()
        with self._changed:
            self._subscriptions.setdefault(subscription.turn_id, []).append(subscription)
            self._changed.notify_all()
            # One interrupt is enough for all subscriptions added during a read.
            needed = self._reading and not self._interrupted
            self._interrupted = self._interrupted or needed
            return needed

    def interrupt(self) -> None:
        """End the waiting read, so that the next one includes new subscriptions.

        Raises:
            StoreUnavailable: Redis is out of reach. The read ends by itself within `MAX_WAIT`.
        """
        try:
            self._store.interrupt()
        except BaseException:
            with self._changed:
                self._interrupted = False
            raise

    def nudge(self) -> None:
        """Try to interrupt. An error is only logged, and delays events by up to `MAX_WAIT`."""
        try:
            self.interrupt()
        except BaseException as error:
            # Some errors, if raised from a pool's thread, would end the caller's event loop.
            log.warning(line("follower.not_interrupted", error=type(error).__name__))

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivering."""
        with self._changed:
            waiting = self._subscriptions.get(subscription.turn_id, [])
            if subscription in waiting:
                waiting.remove(subscription)
            if not waiting:
                self._subscriptions.pop(subscription.turn_id, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            if not self._started:
                return
        try:
            self._thread.stop(wake=self._wake)
        except AgentAPIError:
            # The thread ends with its read; the process need not wait for that.
            return

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
            reading = self._reading
        if reading:
            self._store.interrupt()

    def _run(self, service: Service) -> None:
        while (cursors := self._cursors(service)) is not None:
            try:
                found = self._store.events(cursors, MAX_WAIT, self._page)
            except StoreUnavailable as error:
                # An outage is expected and does not count as a failure: readers wait until Redis is
                # back.
                self._is_away(error)
                continue
            except Exception as fault:
                in_a_row = service.status().in_a_row
                # An unexpected error may be temporary.
                lasting = isinstance(fault, AgentAPIError) or in_a_row >= PASSING_FAILURES
                if lasting and self._blame(cursors):
                    continue
                # The supervisor may end the process now: tell the waiting readers first.
                if in_a_row + 1 >= MAX_FAILURES:
                    self._end(self._all(), _fault(fault))
                raise
            self._is_back()
            self._deliver(found, cursors)
            service.progress()
            if len(cursors) > _FEW:
                service.wait(min(_MAX_PAUSE, (len(cursors) - _FEW) * _PAUSE_PER_TURN))

    def _is_away(self, error: StoreUnavailable) -> None:
        if not self._away:
            log.warning(line("follower.away", error=error))
        self._away = True
        if not isinstance(error, LoginRefused):
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()
        # Unlike other outages, a wrong password does not resolve itself.
        elif time.monotonic() - self._refused_since > MAX_LOGIN_REFUSAL:
            self._end(self._all(), error)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, _AWAY_DELAY)

    def _is_back(self) -> None:
        if self._away:
            log.warning(line("follower.back"))
        self._away, self._refused_since = False, None

    def _blame(self, cursors: Mapping[str, int]) -> bool:
        """Read each turn alone, and end the subscriptions to unreadable ones; returns whether any
        were."""
        blamed = False
        for turn_id, after in cursors.items():
            try:
                found = self._store.events({turn_id: after}, 0, self._page)
            except StoreUnavailable:
                return blamed
            except Exception as fault:
                blamed = True
                log.error(line("follower.unreadable", turn_id=turn_id, error=type(fault).__name__))
                self._end(self._of(turn_id), _fault(fault))
            else:
                self._deliver(found, cursors)
        return blamed

    def _cursors(self, service: Service) -> dict[str, int] | None:
        """The positions to read from; waits for a first subscription. None when closed."""
        with self._changed:
            self._reading = self._interrupted = False
            while not self._changed.wait_for(lambda: self._closed or self._subscriptions, MAX_WAIT):
                service.progress()
            if self._closed:
                return None
            self._reading = True
            return {
                # Readers of one turn share a read, which starts at the one furthest behind.
                turn_id: min(subscription.after for subscription in waiting)
                for turn_id, waiting in self._subscriptions.items()
            }

    def _all(self) -> Sequence[Subscription]:
        with self._changed:
            return [found for waiting in self._subscriptions.values() for found in waiting]

    def _of(self, turn_id: str) -> Sequence[Subscription]:
        with self._changed:
            return list(self._subscriptions.get(turn_id, ()))

    def _deliver(self, found: Mapping[str, Sequence[Event]], cursors: Mapping[str, int]) -> None:
        """Hand over the events that were read, in one call for each listener."""
        batches: dict[Listener, list[tuple[Subscription, Sequence[Event]]]] = {}
        for turn_id, events in found.items():
            for subscription in self._of(turn_id):
                # A subscription added during the read may need events before the read's cursor. The
                # next read returns them.
                if subscription.after < cursors[turn_id]:
                    continue
                if new := [event for event in events if event.number > subscription.after]:
                    batches.setdefault(subscription.listener, []).append((subscription, new))
        for listener, batch in batches.items():
            taken = self._hand(listener, batch)
            for subscription, events in batch:
                # Only now, so that events that were not taken are read again.
                subscription.after = events[-1].number
                if not taken or events[-1].type.ends:
                    self.unsubscribe(subscription)

    def _end(self, subscriptions: Iterable[Subscription], error: AgentAPIError) -> None:
        for subscription in subscriptions:
            self._hand(subscription.listener, [(subscription, error)])
            self.unsubscribe(subscription)

    def _hand(self, listener: Listener, batch: Sequence[tuple[Subscription, Delivery]]) -> bool:
        """Call a listener; returns whether it took the batch."""
        try:
            listener(batch)
            return True
        except Exception as error:
            # For example, its event loop has ended. Other listeners must not lose events because of
            # it.
            turn_ids = ",".join(subscription.turn_id for subscription, _ in batch)
            log.warning(
                line("follower.undeliverable", turn_ids=turn_ids, error=type(error).__name__)
            )
            return False


def _fault(error: Exception) -> AgentAPIError:
    if isinstance(error, AgentAPIError):
        return error
    fault = StoreFault(f"the turn's events cannot be read: {type(error).__name__}; see the log")
    fault.__cause__ = error
    return fault
