"""The producers: enqueue turns for the workers, and get their replies."""

from agentapi.stores import CancelOutcome
from orchestrator.aio import AsyncOrchestrator, AsyncTurnHandle
from orchestrator.client import Orchestrator
from orchestrator.handle import TurnHandle
from orchestrator.requests import TurnRequest

__all__ = [
    "AsyncOrchestrator",
    "AsyncTurnHandle",
    "CancelOutcome",
    "Orchestrator",
    "TurnHandle",
    "TurnRequest",
]
