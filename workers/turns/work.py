"""The protocol between a worker's turns and the kinds of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.window import Window
from agentapi.engine.patience import RetryPolicy
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import Suspension
from agentapi.stores import Claim, Ending
from agentapi.tools import ToolContext
from agentapi.turns import CallBook, TurnResult
from agentapi.turns.context import own_metadata
from agentapi.turns.kinds import TurnKind
from workers.turns.log import WorkerLog
from workers.turns.running import RunningTurn


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A claimed turn, ready to run.

    Attributes:
        agent: The agent that runs it.
        claim: The store's answer to the claim.
        progress: The steps so far. Every further step is added to it.
        running: Makes blocking calls in a thread.
        log: Receives each step.
        book: The outcomes of calls that waited.
    """

    agent: AgentDefinition
    claim: Claim
    progress: TurnProgress
    running: RunningTurn
    log: WorkerLog
    book: CallBook


class Work(Protocol):
    """What a worker does for turns of one kind."""

    def window(self, agent: str) -> Window:
        """How much of the history a claim loads, for a turn that names this agent."""
        ...

    def lacks_agent(self, claim: Claim, progress: TurnProgress) -> bool:
        """Whether the turn needs an agent that this worker does not know; another may."""
        ...

    def agent(self, claim: Claim) -> AgentDefinition:
        """The agent that runs the turn.

        Raises:
            UnknownAgent: This worker does not know it.
            InvalidMessage: The turn's message does not say which.
        """
        ...

    async def run(self, attempt: Attempt) -> TurnResult | Suspension:
        """On the event loop: run the turn until it ends or must wait; raises as `TurnRun.run`."""
        ...

    def after(self, claim: Claim, ending: Ending) -> None:
        """In a thread: start follow-up work of a turn that has ended."""
        ...


Works: TypeAlias = Mapping[TurnKind, Work]
"""The work class for each kind of turn."""


def context_of(claim: Claim, agent: str = "") -> ToolContext:
    """What prompts, tools and hooks learn about the turn, with the stored context.

    Args:
        claim: The turn's claim.
        agent: Name of the agent that begins to answer.
    """
    turn = claim.turn
    return ToolContext(
        conversation_id=turn.conversation_id,
        turn_id=turn.turn_id,
        agent=agent,
        user_id=turn.user_id,
        tenant_id=turn.tenant_id,
        metadata=own_metadata(turn.metadata),
        attempt=turn.attempt,
        # Redis's time: this machine's clock may be wrong.
        time=datetime.fromtimestamp(claim.now, UTC),
        context=turn.context,
    )


def retry_policy(settings: Settings, claim: Claim, patience: float | None = None) -> RetryPolicy:
    """How the turn's model calls are repeated.

    Args:
        settings: The worker's settings.
        claim: The turn's claim, with the failures so far.
        patience: The agent's own patience.
    """
    waits = claim.turn.waiting_for
    since = None if waits is None else waits.since
    return RetryPolicy(
        max_retries=settings.provider_max_retries,
        failures=claim.turn.failures,
        # Both are times of Redis: this machine's clock may be wrong.
        failing_for=0.0 if since is None else max(0.0, claim.now - since),
        patience=settings.provider_patience if patience is None else patience,
        park_after=None if settings.eager else settings.park_after,
    )
