"""Freeing the turns of a worker that was killed, so that others take them immediately."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agentapi import Settings
from agentapi.errors import AgentAPIError
from agentapi.logs import line
from agentapi.stores import RedisTurnStore
from workers.dispatch import Dispatcher
from workers.outage import Outage, ride_out
from workers.turns.suspect import SuspectTurn

log = logging.getLogger("agentapi.watchdog")


def free_turns(
    settings: Settings,
    dispatcher: Dispatcher,
    process: str,
    candidate: str,
    waiting: Sequence[SuspectTurn],
) -> None:
    """End the leases of a worker that is certainly dead, and wake others for its turns.

    Args:
        settings: The worker's settings.
        dispatcher: Sends wake-ups.
        process: The prefix of the worker's claim tokens.
        candidate: The worker's name in the election and in the sweep.
        waiting: Suspect turns of the worker that no process had claimed yet.
    """
    store = RedisTurnStore(settings)

    def free() -> list[str]:
        # Others may lead and sweep in the dead worker's place immediately.
        store.resign(candidate)
        return store.orphan(process)

    try:
        # No longer than a lease: after that, all leases have expired.
        freed = ride_out(free, outage=Outage(), patience=settings.lease_ttl)
        # The sweep would do this too, a second later. Without `claimed`, no turn counts as queued:
        # these turns were claimed, so their wake-ups are used up.
        for wakeup in store.redispatch(freed, claimed={}):
            dispatcher.send(wakeup)
        # These had no lease to free: no process had claimed them yet.
        for turn in waiting:
            dispatcher.send(turn.wakeup)
        log.warning(line("worker.died", worker=candidate, freed=len(freed)))
    except AgentAPIError as error:
        log.warning(line("watchdog.failed", worker=candidate, error=error.code))
