"""Producers: enqueue turns for the workers, and get their replies."""

from agentapi.flows import Ask
from agentapi.stores import CancelOutcome, ConversationSummary, Paged, TurnEnd, TurnSummary
from orchestrator.aio import AsyncGatherHandle, AsyncOrchestrator, AsyncTurnHandle
from orchestrator.bulk import BulkResult
from orchestrator.client import Orchestrator
from orchestrator.handle import GatherHandle, TurnHandle
from orchestrator.listing import AsyncListing, Listing
from orchestrator.turn_request import TurnRequest

__all__ = [
    "Ask",
    "AsyncGatherHandle",
    "AsyncListing",
    "AsyncOrchestrator",
    "AsyncTurnHandle",
    "BulkResult",
    "CancelOutcome",
    "ConversationSummary",
    "GatherHandle",
    "Listing",
    "Orchestrator",
    "Paged",
    "TurnEnd",
    "TurnHandle",
    "TurnRequest",
    "TurnSummary",
]
