"""Claimed turns that this release cannot read: left to a newer worker, or failed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Final

from agentapi.logs import line
from agentapi.stores import Ending, ErrandKind, Unreadable, WorkerStore
from agentapi.turns import TurnError, TurnStatus
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.outage import Outage, ride_out
from workers.turns import measuring
from workers.turns.summary import Summary, written

log = logging.getLogger("agentapi.turn")

MOST_DEFERRALS: Final = 10
"""How many times a turn of a newer release is handed back, over about five minutes. By then an
upgrade in progress has started a worker that can run it."""

LONGEST_DEFERRAL: Final = 60.0
"""Seconds; the delays double from one second up to this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadableTurns:
    """Decides about such turns, and acts on the decision."""

    store: WorkerStore
    dispatcher: Dispatcher
    errands: Errands
    outage: Outage

    def settle(self, fault: Unreadable) -> Summary:
        """Hand the turn back with a growing delay, or fail it.

        Returns:
            Its state.
        """
        lease = fault.lease
        # A broken record stays broken; only one of a newer release may be readable elsewhere.
        waits = fault.error.newer and fault.deferrals < MOST_DEFERRALS
        log.error(
            line(
                "turn.unreadable",
                conversation_id=lease.conversation_id,
                turn_id=lease.turn_id,
                attempt=fault.attempt,
                newer=fault.error.newer,
                deferrals=fault.deferrals,
            )
        )
        settle = self._defer if waits else self._end
        return written(lease, fault.attempt, self.outage, partial(settle, fault))

    def _defer(self, fault: Unreadable) -> Summary:
        delay = min(2.0**fault.deferrals, LONGEST_DEFERRAL)
        ride_out(lambda: self.store.release(fault.lease, delay), outage=self.outage)
        return {"status": "handed_back", "attempt": fault.attempt, "seconds": delay}

    def _end(self, fault: Unreadable) -> Summary:
        code = fault.error.code
        # A cancellation still takes effect, although nothing could be read.
        cancelled = fault.turn is not None and fault.turn.cancel_requested
        ending = (
            Ending(status=TurnStatus.CANCELLED)
            if cancelled
            else Ending(
                status=TurnStatus.FAILED, error=TurnError(code=code, message=str(fault.error))
            )
        )
        wakeup = ride_out(lambda: self.store.commit(fault.lease, ending), outage=self.outage)
        measuring.unreadable_ended(fault, ending)
        self.dispatcher.send(wakeup)
        if fault.turn is not None and fault.turn.parent_id is not None:
            self.errands.of_turn(ErrandKind.DELIVER, fault.turn.turn_id)
        shown = {} if cancelled else {"error": code}
        return {"status": ending.status.value, "attempt": fault.attempt, **shown}
