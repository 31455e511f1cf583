"""The transition that ends an attempt. It is written after the attempt's events, even if Redis is
unreachable for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from workers.outage import Outage, ride_out
from workers.turns.events import EventLog
from workers.turns.running import RunningTurn, StopReason

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnWriter:
    """Writes how attempts end, in a thread."""

    events: EventLog
    outage: Outage

    def write(self, running: RunningTurn, transition: Callable[[], T]) -> T:
        """Make the transition that ends an attempt.

        The events come first: readers stop at the event that the transition adds.

        Raises:
            LeaseLost: Another worker owns the conversation.
            StoreUnavailable: Redis was unreachable for too long.
        """

        def write() -> T:
            self.events.flush(running.lease)
            return transition()

        # A cancelled turn and one of a worker that shuts down must be written too. Without the
        # lease the store would refuse, so waiting for Redis would be pointless.
        return ride_out(
            write,
            outage=self.outage,
            give_up=lambda: running.reason is StopReason.LEASE_LOST,
        )
