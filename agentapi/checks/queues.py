"""The number of queues, which all processes must have the same."""

from __future__ import annotations

from agentapi.stores.answers import NEW_FLEET


def disagreement(here: int, fleet: int) -> str:
    """What to say when a process has another number of queues than the fleet.

    Args:
        here: `AGENTAPI_QUEUES` of the process.
        fleet: The number that the workers have.
    """
    return (
        f"AGENTAPI_QUEUES is {here} here, and the workers have {fleet} queues: wake-ups would go "
        f"to queues that nobody reads. {queues_remedy(fleet)}"
    )


def queues_remedy(fleet: int) -> str:
    """How to agree, and how to change the number without a turn that waits."""
    return (
        f"Set AGENTAPI_QUEUES={fleet}. To change the number, stop all workers, wait "
        f"{NEW_FLEET:g} s, and start them with the new one; a larger number goes to producers and "
        "gateways after the workers, a smaller one before"
    )
