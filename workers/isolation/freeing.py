"""What the watchdog does when its worker was killed: the worker's turns go to others at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentapi.errors import AgentAPIError
from agentapi.logs import line
from agentapi.stores import RedisTurnStore
from workers.isolation.messages import SuspectTurn
from workers.outage import Outage, ride_out

if TYPE_CHECKING:
    from workers.app import WorkerApp

log = logging.getLogger("agentapi.watchdog")


def free_turns(app: WorkerApp, candidate: str, waiting: Sequence[SuspectTurn]) -> None:
    """End the leases of a worker that is certainly dead, and wake others for its turns.

    Args:
        app: As the worker made it; nothing in it is connected or started.
        candidate: The worker's name in the election of the sweeper.
        waiting: Suspect turns that the worker had and that nobody had claimed yet.
    """
    settings = app.settings
    store = RedisTurnStore(settings)

    def free() -> list[str]:
        store.resign(candidate)
        return store.orphan(app.runtime.process)

    try:
        # After a lease's time there is nothing left to end early.
        freed = ride_out(free, outage=Outage(), patience=settings.lease_ttl)
        # The sweep would do the rest a second later.
        for wakeup in store.redispatch(freed, claimed={}):
            app.dispatcher.send(wakeup)
        for turn in waiting:
            app.dispatcher.send(turn.wakeup)
        log.warning(line("worker.died", worker=candidate, freed=len(freed)))
    except AgentAPIError as error:
        log.warning(line("watchdog.failed", worker=candidate, error=error.code))
