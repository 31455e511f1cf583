"""Following the events of any number of turns with one thread and one connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agentapi.errors import StoreUnavailable
from agentapi.stores import TurnStore
from agentapi.turns import Event

log = logging.getLogger("agentapi.follower")

_WAIT = 30.0


@dataclass(eq=False)
class Subscription:
    """Somebody's wish to get a turn's events after a number, each once, in order."""

    turn_id: str
    after: int
    deliver: Callable[[Event], None]


class EventFollower:
    """Reads for all subscriptions at once and hands each event to those who wait for it.

    `deliver` is called in the follower's thread and must not block.
    """

    def __init__(self, store: TurnStore) -> None:
        self._store = store
        self._subscriptions: set[Subscription] = set()
        self._changed = threading.Condition()
        self._reading = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def subscribe(self, turn_id: str, after: int, deliver: Callable[[Event], None]) -> Subscription:
        """Begin to deliver the turn's events whose number is above `after`.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        subscription = Subscription(turn_id, after, deliver)
        with self._changed:
            self._subscriptions.add(subscription)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="agentapi-follower", daemon=True
                )
                self._thread.start()
            interrupt = self._reading
            self._changed.notify_all()
        if interrupt:
            self._store.interrupt()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivering."""
        with self._changed:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread, reading = self._thread, self._reading
        if thread is None:
            return
        if reading:
            try:
                self._store.interrupt()
            except StoreUnavailable:
                return
        thread.join(timeout=5)

    def _run(self) -> None:
        away = False
        while (cursors := self._cursors()) is not None:
            try:
                found = self._store.events(cursors, _WAIT)
                away = False
            except StoreUnavailable as error:
                if not away:
                    log.warning("follower.away error=%s", error)
                away = True
                with self._changed:
                    self._changed.wait(0.5)
                continue
            for turn_id, events in found.items():
                self._deliver(turn_id, events)

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

    def _deliver(self, turn_id: str, events: list[Event]) -> None:
        with self._changed:
            waiting = [s for s in self._subscriptions if s.turn_id == turn_id]
            for subscription in waiting:
                for event in events:
                    if event.number > subscription.after:
                        subscription.after = event.number
                        subscription.deliver(event)
                if events and events[-1].type.ends:
                    self._subscriptions.discard(subscription)
