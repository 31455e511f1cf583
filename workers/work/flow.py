"""Turns of gather and chain: they only delegate, and call no model."""

from __future__ import annotations

from dataclasses import dataclass

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.window import Window
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.progress import TurnProgress
from agentapi.engine.rules import turn_rules
from agentapi.engine.tool_calls import Suspension
from agentapi.flows import Flow
from agentapi.stores import Claim, Ending
from agentapi.turns import TurnResult
from workers.turns.work import Attempt, context_of


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowWork:
    """Runs the agent loop with a flow in place of a model."""

    settings: Settings
    flow: Flow

    def window(self, agent: str) -> Window:
        """See `Work.window`."""
        return self.flow.agent.window

    def lacks_agent(self, claim: Claim, progress: TurnProgress) -> bool:
        """See `Work.lacks_agent`. Every worker knows the flows."""
        return False

    def agent(self, claim: Claim) -> AgentDefinition:
        """See `Work.agent`."""
        return self.flow.agent

    async def run(self, attempt: Attempt) -> TurnResult | Suspension:
        """See `Work.run`."""
        claim, turn = attempt.claim, attempt.claim.turn
        run = TurnRun(
            agent=attempt.agent,
            history=History(),
            progress=attempt.progress,
            context=context_of(claim),
            log=attempt.log,
            connect=lambda _: self.flow.model,
            book=attempt.book,
            rules=turn_rules(self.settings, turn.depth, turn.budget, claim.spent),
        )
        return await run.run()

    def after(self, claim: Claim, ending: Ending) -> None:
        """See `Work.after`. Nothing follows: the flow's conversation belongs to its turn alone."""
