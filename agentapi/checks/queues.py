"""Checks the number of queues, which must be the same for all processes."""

from __future__ import annotations

from agentapi.stores.answers import NEW_FLEET


def disagreement(here: int, fleet: int) -> str:
    """The error text for a process whose number of queues differs from the fleet's.

    Args:
        here: `AGENTAPI_QUEUES` of the process.
        fleet: The workers' number of queues.
    """
    return (
        f"AGENTAPI_QUEUES is {here} here, but the workers have {fleet} queues: wake-ups would go "
        f"to queues that no worker reads. {queues_remedy(fleet)}"
    )


def queues_remedy(fleet: int) -> str:
    """How to use the same number, and how to change it without delaying turns."""
    return (
        f"Set AGENTAPI_QUEUES={fleet}. To change the number, stop all workers, wait {NEW_FLEET:g} "
        "s, and start them with the new number. Change producers and gateways after the workers to "
        "increase it, before them to decrease it"
    )
