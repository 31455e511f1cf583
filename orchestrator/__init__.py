"""Producers: enqueue turns for the workers and get their replies."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.stores import (
        CancelOutcome,
        ConversationSummary,
        Missing,
        Paged,
        TurnEnd,
        TurnSummary,
    )
    from agentapi.turns.asks import Ask
    from orchestrator.aio import AsyncGatherHandle, AsyncOrchestrator, AsyncTurnHandle
    from orchestrator.bulk import BulkResult
    from orchestrator.client import Orchestrator
    from orchestrator.data.forgetting import ForgottenUser
    from orchestrator.data.importing import ImportResult
    from orchestrator.handle import GatherHandle, TurnHandle
    from orchestrator.listing import AsyncListing, Listing
    from orchestrator.timeline import Timeline
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
    "ForgottenUser",
    "GatherHandle",
    "ImportResult",
    "Listing",
    "Missing",
    "Orchestrator",
    "Paged",
    "Timeline",
    "TurnEnd",
    "TurnHandle",
    "TurnRequest",
    "TurnSummary",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.turns.asks": ("Ask",),
        "agentapi.stores": (
            "CancelOutcome",
            "ConversationSummary",
            "Missing",
            "Paged",
            "TurnEnd",
            "TurnSummary",
        ),
        "orchestrator.aio": (
            "AsyncGatherHandle",
            "AsyncOrchestrator",
            "AsyncTurnHandle",
        ),
        "orchestrator.bulk": ("BulkResult",),
        "orchestrator.client": ("Orchestrator",),
        "orchestrator.data.forgetting": ("ForgottenUser",),
        "orchestrator.data.importing": ("ImportResult",),
        "orchestrator.handle": (
            "GatherHandle",
            "TurnHandle",
        ),
        "orchestrator.listing": ("AsyncListing", "Listing"),
        "orchestrator.timeline": ("Timeline",),
        "orchestrator.turn_request": ("TurnRequest",),
    },
)
