"""Explains why a turn has not started."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.cli.times import clock

if TYPE_CHECKING:
    from agentapi.stores import TurnSummary
    from orchestrator import Orchestrator
    from orchestrator.handle import TurnHandle


def why_not_started(orchestrator: Orchestrator, handle: TurnHandle) -> str:
    """Describe in one sentence what a turn waits for before its start."""
    from agentapi.errors import AgentAPIError

    try:
        first = _first(orchestrator, handle)
        if first is not None and first.turn_id != handle.turn_id:
            does = _does(orchestrator, first)
            return f"turn {first.turn_id} of the conversation is first in line: {does}"
    except AgentAPIError:
        # Lists may be switched off, and the first turn may end in the meantime.
        first = None
    if first is None:
        return (
            "an earlier turn of the conversation has not ended, or no worker is free; `agentapi "
            "doctor` shows which"
        )
    return (
        "it is first in line, but no worker has claimed it: `agentapi top` shows whether workers "
        "respond and have free slots"
    )


def _first(orchestrator: Orchestrator, handle: TurnHandle) -> TurnSummary | None:
    """The oldest turn of the conversation that has not ended."""
    open_turns = orchestrator.turns(
        conversation_id=handle.conversation_id, status=("queued", "running", "parked")
    )
    first = None
    # The list has the newest turns first.
    for turn in open_turns:
        first = turn
    return first


def _does(orchestrator: Orchestrator, turn: TurnSummary) -> str:
    from agentapi import TurnStatus

    found = orchestrator.turn(turn.turn_id)
    if turn.status is TurnStatus.RUNNING:
        since = f" since {clock(turn.started_at)}" if turn.started_at else ""
        return f"it runs on {turn.worker}{since}: agentapi follow {turn.turn_id}"
    if turn.status is TurnStatus.QUEUED:
        return (
            "it is waiting for a worker; `agentapi top` shows whether workers respond and have "
            "free slots"
        )
    waiting_for = found.info().waiting_for
    if waiting_for is not None:
        return f"it is {waiting_for.describe(time.time())}"
    if found.pending():
        return f"it waits for a decision: agentapi pending {turn.turn_id}"
    return f"it waits for other turns or its client: agentapi turn {turn.turn_id}"
