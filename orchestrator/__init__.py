"""Producers: enqueue turns for the workers, and get their replies."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.stores import CancelOutcome
    from agentapi.turns.asks import Ask
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.turns.asks": ("Ask",),
        "agentapi.stores": ("CancelOutcome",),
        "orchestrator.aio": (
            "AsyncGatherHandle",
            "AsyncOrchestrator",
            "AsyncTurnHandle",
        ),
        "orchestrator.client": ("Orchestrator",),
        "orchestrator.handle": (
            "GatherHandle",
            "TurnHandle",
        ),
        "orchestrator.turn_request": ("TurnRequest",),
    },
)
