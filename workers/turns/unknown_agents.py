"""Turns of agents that this worker does not have: another worker may have them.

In a rolling upgrade that adds an agent only the new workers know it. So the turn is handed back for
a while before it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.compaction import COMPACT
from agentapi.engine.progress import TurnProgress
from agentapi.errors import LeaseLost, StoreUnavailable
from agentapi.stores import Claim, TurnStore
from workers.outage import Outage, ride_out
from workers.turns.claimed import claim_line

log = logging.getLogger("agentapi.turn")

FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 1.0
"""Seconds; short, so that the turn meets many workers in the time that it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownAgents:
    """Leaves such turns to other workers, for a bounded time."""

    settings: Settings
    agents: Mapping[str, AgentDefinition]
    store: TurnStore
    outage: Outage

    def leave(self, claim: Claim, name: str, progress: TurnProgress) -> dict[str, Any] | None:
        """Hand the turn back with a delay, if it needs an agent that is not known here.

        Args:
            claim: The turn.
            name: The agent that it begins or goes on with.
            progress: What it did.

        Returns:
            How it stands then; None when it is to be carried out here, if only to its failure.
        """
        turn, delay = claim.turn, _delay(claim.turn.deferrals)
        late = turn.deadline_at is not None and turn.deadline_at <= claim.now
        ends = turn.cancel_requested or late or turn.deaths >= self.settings.max_attempts
        if ends or not self._is_unknown(name, progress) or self._has_waited(turn.deferrals):
            return None
        try:
            ride_out(lambda: self.store.release(claim.lease, delay), outage=self.outage)
        except LeaseLost:
            return {"status": "lost", "attempt": turn.attempt}
        except StoreUnavailable as error:
            self.outage.begins(error)
            return {"status": error.code}
        log.info(claim_line("turn.left_to_others", claim, deferrals=turn.deferrals))
        return {"status": "handed_back", "attempt": turn.attempt, "seconds": delay}

    def _is_unknown(self, name: str, progress: TurnProgress) -> bool:
        if name == COMPACT:
            # What that is to summarise cannot be read, here or elsewhere.
            return False
        agent = self.agents.get(name)
        if agent is None:
            return True
        # Handed over, or about to run tools of the agent that it was handed over to.
        target = progress.responder if progress.open_calls() else progress.handed_to
        known = target in (None, name) or target in self.agents
        return not known and agent.handoff_to(str(target)) is None

    def _has_waited(self, deferrals: int) -> bool:
        waited = sum(_delay(number) for number in range(deferrals))
        return self.settings.eager or waited >= self.settings.unknown_agent_wait


def _delay(deferrals: int) -> float:
    return float(min(FIRST_DELAY * 2.0 ** min(deferrals, 8), LONGEST_DELAY))
