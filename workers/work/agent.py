"""Turns in which an agent answers a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agentapi import Settings
from agentapi.admission import ProviderGate
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.names import unknown_agent
from agentapi.agents.registry import widest_window
from agentapi.conversation.compaction import not_summarised
from agentapi.conversation.window import DEFAULT_WINDOW, Window
from agentapi.engine.fitting import Contexts
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.model_chain import chain_of
from agentapi.engine.progress import TurnProgress
from agentapi.engine.requested import Requested
from agentapi.engine.rules import turn_rules
from agentapi.engine.tool_calls import Suspension
from agentapi.stores import Claim, Ending, HistoryStore
from agentapi.turns import TurnResult
from workers.turns.work import Attempt, context_of, retry_policy
from workers.work.compaction import Compactor


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentWork:
    """Runs the agent loop with a provider's model."""

    settings: Settings
    agents: Mapping[str, AgentDefinition]
    store: HistoryStore
    gate: ProviderGate
    compactor: Compactor

    def window(self, agent: str) -> Window:
        """See `Work.window`."""
        known = self.agents.get(agent)
        # An unknown agent does not matter if the conversation was handed over to a known one.
        if known is None:
            return DEFAULT_WINDOW
        return widest_window(known, self.agents, self.settings.models)

    def lacks_agent(self, claim: Claim, progress: TurnProgress) -> bool:
        """See `Work.lacks_agent`."""
        name = _name(claim)
        agent = self.agents.get(name)
        if agent is None:
            return True
        # Handed over, or about to run tools of the agent that it was handed over to.
        target = progress.responder if progress.open_calls() else progress.handed_to
        known = target in (None, name) or target in self.agents
        return not known and agent.handoff_to(str(target)) is None

    def agent(self, claim: Claim) -> AgentDefinition:
        """See `Work.agent`."""
        name = _name(claim)
        agent = self.agents.get(name)
        if agent is None:
            raise unknown_agent(name, self.agents)
        return agent

    async def run(self, attempt: Attempt) -> TurnResult | Suspension:
        """See `Work.run`."""
        claim, turn = attempt.claim, attempt.claim.turn
        # An earlier run of this attempt, before calls that waited, may have learned more.
        learned = attempt.progress.contexts or claim.contexts
        contexts = Contexts(
            sizes=self.settings.models, calibration=claim.calibration, learned=learned
        )
        run = TurnRun(
            agent=attempt.agent,
            history=self._history(attempt),
            progress=attempt.progress,
            context=context_of(claim, attempt.agent.name),
            log=attempt.log,
            # Admission asks Redis, so the chain needs a way to call it off the event loop.
            connect=partial(chain_of, gate=self.gate, call=attempt.log.call, contexts=contexts),
            stream=turn.stream,
            retry=retry_policy(self.settings, claim),
            book=attempt.book,
            rules=turn_rules(self.settings, turn.depth, turn.budget, claim.spent),
            agents=self.agents,
            client=turn.client_tools,
            # These are all claims: this one, and those that ended by parking.
            interrupted=turn.attempt != turn.parks + 1,
            requested=Requested(
                options=turn.options, agent=turn.agent, default=self.settings.request_policy
            ),
        )
        outcome = await run.run()
        if contexts.news:
            attempt.progress.contexts = {**learned, **contexts.news}
            # What it learned is measured in tokens of this calibration.
            attempt.progress.calibration = attempt.progress.calibration or contexts.calibration
        return outcome

    def _history(self, attempt: Attempt) -> History:
        agent, claim, running = attempt.agent, attempt.claim, attempt.running

        async def fetch(names: Sequence[str]) -> Mapping[str, bytes]:
            return await running.call(lambda: self.store.blobs(claim.turn.conversation_id, names))

        return History(
            messages=not_summarised(claim.history, claim.summary)
            if agent.compact
            else claim.history,
            summary=claim.summary.text if agent.compact else "",
            calibration=claim.calibration,
            blobs=fetch,
        )

    def after(self, claim: Claim, ending: Ending) -> None:
        """See `Work.after`."""
        agent = self.agents.get(_name(claim))
        if agent is not None:
            self.compactor.after(agent, claim, ending)


def _name(claim: Claim) -> str:
    """The agent that the turn begins with: the conversation may have been handed over."""
    return claim.answering or claim.turn.agent
