"""Following the events of any number of turns with one thread and one connection."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from agentapi.errors import AgentAPIError, LoginRefused, StoreFault, StoreUnavailable
from agentapi.logs import line
from agentapi.stores import TurnStore
from agentapi.supervision import MAX_FAILURES, Service, Supervisor, ThreadService
from agentapi.turns import Event

log = logging.getLogger("agentapi.follower")

_WAIT = 30.0

_AWAY_DELAY: Final = 0.5
"""Seconds between tries while Redis is away."""

LOGIN_PATIENCE: Final = 30.0
"""Seconds for which Redis may refuse the password, as while it is changed, before those who wait
are told."""

PASSING_FAILURES: Final = 2
"""Unexpected errors in a row before one turn is looked for that causes them."""

Delivery: TypeAlias = Event | AgentAPIError
"""An event; or why no more of them will come."""


@dataclass(eq=False)
class Subscription:
    """Somebody's wish to get a turn's events after a number, each once, in order."""

    turn_id: str
    after: int
    deliver: Callable[[Delivery], None]


class EventFollower:
    """Reads for all subscriptions at once and hands each event to those who wait for it.

    `deliver` is called in the follower's thread and must not block. What goes wrong with one
    subscription ends that one, and what nobody expected is logged and tried again: a producer's
    process is never ended.
    """

    def __init__(self, store: TurnStore) -> None:
        self._store = store
        self._subscriptions: set[Subscription] = set()
        self._changed = threading.Condition()
        self._reading = False
        self._closed = False
        self._away = False
        self._refused_since: float | None = None
        self._supervisor = Supervisor(fatal=None)
        self._thread: ThreadService | None = None

    def subscribe(
        self, turn_id: str, after: int, deliver: Callable[[Delivery], None]
    ) -> Subscription:
        """Begin to deliver the turn's events whose number is above `after`.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        subscription = Subscription(turn_id, after, deliver)
        with self._changed:
            self._subscriptions.add(subscription)
            if self._thread is None:
                self._thread = self._supervisor.thread("agentapi-follower", self._run)
                self._thread.start()
            interrupt = self._reading
            self._changed.notify_all()
        try:
            if interrupt:
                self._store.interrupt()
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivering."""
        with self._changed:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            thread, reading = self._thread, self._reading
        if thread is None:
            return
        try:
            thread.stop(wake=lambda: self._wake(reading))
        except AgentAPIError:
            # It ends with its read; the process need not wait for that.
            return

    def _wake(self, reading: bool) -> None:
        with self._changed:
            self._changed.notify_all()
        if reading:
            self._store.interrupt()

    def _run(self, service: Service) -> None:
        while (cursors := self._cursors()) is not None:
            try:
                found = self._store.events(cursors, _WAIT)
            except StoreUnavailable as error:
                self._is_away(error)
                continue
            except Exception as fault:
                in_a_row = service.status().in_a_row
                # What nobody expected may pass.
                lasting = isinstance(fault, AgentAPIError) or in_a_row >= PASSING_FAILURES
                if lasting and self._blame(cursors):
                    continue
                if in_a_row + 1 >= MAX_FAILURES:
                    self._end(self._all(), _fault(fault))
                raise
            self._is_back()
            for turn_id, events in found.items():
                self._deliver(turn_id, cursors[turn_id], events)
            service.progress()

    def _is_away(self, error: StoreUnavailable) -> None:
        if not self._away:
            log.warning(line("follower.away", error=error))
        self._away = True
        if not isinstance(error, LoginRefused):
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()
        elif time.monotonic() - self._refused_since > LOGIN_PATIENCE:
            self._end(self._all(), error)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, _AWAY_DELAY)

    def _is_back(self) -> None:
        if self._away:
            log.warning(line("follower.back"))
        self._away, self._refused_since = False, None

    def _blame(self, cursors: dict[str, int]) -> bool:
        """Read turn by turn, and end those that cannot be read; returns whether there were any."""
        blamed = False
        for turn_id, after in cursors.items():
            try:
                found = self._store.events({turn_id: after}, 0)
            except StoreUnavailable:
                return blamed
            except Exception as fault:
                blamed = True
                log.error(line("follower.unreadable", turn_id=turn_id, error=type(fault).__name__))
                self._end(self._of(turn_id), _fault(fault))
            else:
                self._deliver(turn_id, after, found.get(turn_id, []))
        return blamed

    def _cursors(self) -> dict[str, int] | None:
        """What to read next; waits for a first subscription. None when closed."""
        with self._changed:
            self._reading = False
            self._changed.wait_for(lambda: self._closed or self._subscriptions)
            if self._closed:
                return None
            self._reading = True
            cursors: dict[str, int] = {}
            for subscription in self._subscriptions:
                known = cursors.get(subscription.turn_id, subscription.after)
                cursors[subscription.turn_id] = min(known, subscription.after)
            return cursors

    def _all(self) -> Sequence[Subscription]:
        with self._changed:
            return list(self._subscriptions)

    def _of(self, turn_id: str) -> Sequence[Subscription]:
        return [waiting for waiting in self._all() if waiting.turn_id == turn_id]

    def _deliver(self, turn_id: str, after: int, events: Sequence[Event]) -> None:
        """Hand out the events that were read after a number."""
        for subscription in self._of(turn_id):
            if subscription.after < after:
                # It came during the read, which began behind what it has yet to get.
                continue
            for event in events:
                if event.number > subscription.after:
                    if not self._hand(subscription, event):
                        break
                    # Only now: what was not delivered is read again.
                    subscription.after = event.number
            if events and events[-1].type.ends:
                self.unsubscribe(subscription)

    def _end(self, subscriptions: Iterable[Subscription], error: AgentAPIError) -> None:
        for subscription in subscriptions:
            self._hand(subscription, error)
            self.unsubscribe(subscription)

    def _hand(self, subscription: Subscription, what: Delivery) -> bool:
        """Deliver to one; who cannot take it, as when its event loop has ended, gets no more."""
        try:
            subscription.deliver(what)
            return True
        except Exception as error:
            log.warning(
                line(
                    "follower.undeliverable",
                    turn_id=subscription.turn_id,
                    error=type(error).__name__,
                )
            )
            self.unsubscribe(subscription)
            return False


def _fault(error: Exception) -> AgentAPIError:
    if isinstance(error, AgentAPIError):
        return error
    fault = StoreFault(f"the turn's events cannot be read: {type(error).__name__}; see the log")
    fault.__cause__ = error
    return fault
