"""Producers: enqueue turns for the workers, and get their replies."""

from agentapi.flows import Ask
from agentapi.stores import CancelOutcome
from orchestrator.aio import AsyncGatherHandle, AsyncOrchestrator, AsyncTurnHandle
from orchestrator.client import Orchestrator
from orchestrator.handle import GatherHandle, TurnHandle
from orchestrator.turn_request import TurnRequest

__all__ = [
    "Ask",
    "AsyncGatherHandle",
    "AsyncOrchestrator",
    "AsyncTurnHandle",
    "CancelOutcome",
    "GatherHandle",
    "Orchestrator",
    "TurnHandle",
    "TurnRequest",
]
