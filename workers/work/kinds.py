"""Which work belongs to which kind of turn."""

from __future__ import annotations

from collections.abc import Mapping

from agentapi import Settings
from agentapi.admission import ProviderGate
from agentapi.agents.definition import AgentDefinition
from agentapi.flows import chain_flow, gather_flow
from agentapi.stores import TurnStore
from agentapi.turns.kinds import TurnKind
from workers.dispatch import Dispatcher
from workers.turns.work import Works
from workers.work.agent import AgentWork
from workers.work.compaction import CompactionWork, Compactor
from workers.work.flow import FlowWork


def make_works(
    settings: Settings,
    agents: Mapping[str, AgentDefinition],
    store: TurnStore,
    dispatcher: Dispatcher,
    gate: ProviderGate,
) -> Works:
    """The works of a worker."""
    return {
        TurnKind.AGENT: AgentWork(
            settings=settings,
            agents=agents,
            store=store,
            gate=gate,
            compactor=Compactor(settings=settings, store=store, dispatcher=dispatcher),
        ),
        TurnKind.COMPACTION: CompactionWork(
            settings=settings, agents=agents, store=store, gate=gate
        ),
        TurnKind.GATHER: FlowWork(settings=settings, flow=gather_flow()),
        TurnKind.CHAIN: FlowWork(settings=settings, flow=chain_flow()),
    }
