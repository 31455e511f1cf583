"""Turns of agents that this worker does not know, but another worker may.

During a rolling upgrade that adds an agent, only the new workers know it. So for a while such a
turn is handed back instead of failing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from agentapi import Settings
from agentapi.stores import Claim, WorkerStore
from workers.outage import Outage, ride_out
from workers.turns.claimed import claim_line
from workers.turns.summary import Summary, written

log = logging.getLogger("agentapi.turn")

FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 1.0
"""Seconds. The delay is short, so that the turn reaches many workers before it fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownAgents:
    """Leaves such turns to other workers, for a limited time."""

    settings: Settings
    store: WorkerStore
    outage: Outage

    def leave(self, claim: Claim) -> Summary | None:
        """Hand back a turn that needs an unknown agent, with a delay.

        Returns:
            Its state; None if it must run here anyway, if only to fail.
        """
        turn, delay = claim.turn, _delay(claim.turn.deferrals)
        # A turn that must end now needs no agent, so it does not wait for one.
        late = turn.deadline_at is not None and turn.deadline_at <= claim.now
        ends = turn.cancel_requested or late or turn.deaths >= self.settings.max_attempts
        if ends or self._has_waited(turn.deferrals):
            return None

        def hand_back() -> Summary:
            # No wake-up is sent: this worker could take it again. The sweep sends it after the
            # delay.
            ride_out(lambda: self.store.release(claim.lease, delay), outage=self.outage)
            log.info(claim_line("turn.left_to_others", claim, deferrals=turn.deferrals))
            return {"status": "handed_back", "attempt": turn.attempt, "seconds": delay}

        return written(claim.lease, turn.attempt, self.outage, hand_back)

    def _has_waited(self, deferrals: int) -> bool:
        waited = sum(_delay(number) for number in range(deferrals))
        return self.settings.eager or waited >= self.settings.unknown_agent_wait


def _delay(deferrals: int) -> float:
    return float(min(FIRST_DELAY * 2.0 ** min(deferrals, 8), LONGEST_DELAY))
