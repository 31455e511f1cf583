"""The state of a turn when a worker releases it: statuses, numbers and codes, never content."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from agentapi.conversation.finish import FinishReason
from agentapi.errors import InvalidContext, StoreUnavailable
from agentapi.logs import line
from agentapi.signals import LeaseLost
from agentapi.stores import Ending, Lease
from agentapi.turns import Turn
from workers.outage import Outage

Summary: TypeAlias = dict[str, Any]
"""The state of a turn. Flower shows it as the task's result."""

log = logging.getLogger("agentapi.turn")


def of_turn(turn: Turn) -> Summary:
    """A turn that this worker does not run."""
    return {
        "status": turn.status.value,
        "attempt": turn.attempt,
        "steps": turn.steps,
        "tokens": turn.usage.total_tokens,
    }


def of_ending(ending: Ending, attempt: int) -> Summary:
    """A turn that this worker ended."""
    summary: Summary = {
        "status": ending.status.value,
        "attempt": attempt,
        "steps": ending.steps,
        "tokens": ending.usage.total_tokens,
    }
    if ending.error is not None:
        summary["error"] = ending.error.code
    if (reason := ending.finish_reason) not in (None, FinishReason.STOP):
        summary["finish_reason"] = reason.value
    return summary


def failure(turn: Turn, ending: Ending) -> dict[str, str]:
    """The log fields of a failed turn: its code, and what to do."""
    code = ending.error.code if ending.error else ""
    # The context is stored with the turn: it would fail again.
    if code == InvalidContext.code:
        return {"error": code}
    return {"error": code, "retry_with": f"agentapi retry {turn.turn_id}"}


def lease_lost(lease: Lease, attempt: int) -> Summary:
    """A turn that another worker owns now."""
    log.warning(
        line(
            "turn.lost",
            conversation_id=lease.conversation_id,
            turn_id=lease.turn_id,
            attempt=attempt,
        )
    )
    return {"status": "lost", "attempt": attempt}


def written(lease: Lease, attempt: int, outage: Outage, write: Callable[[], Summary]) -> Summary:
    """Write the state of the turn, or return why that was not possible.

    Neither a lost lease nor an unreachable Redis needs more: the new owner continues the turn, or
    the sweep finds it.

    Args:
        lease: The turn's lease.
        attempt: Its number.
        outage: Records whether Redis is unreachable.
        write: Makes the transition, and returns the summary.
    """
    try:
        return write()
    except LeaseLost:
        return lease_lost(lease, attempt)
    except StoreUnavailable as error:
        outage.begins(error)
        return {"status": error.code}
