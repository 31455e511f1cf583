"""Producers: enqueue turns for the workers, and get their replies."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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

# Imported when first used: all of them take half a second, which the command `agentapi` does not
# need for its help or for a shell that completes.
_MODULES: Final = {
    "Ask": "agentapi.flows",
    "AsyncGatherHandle": "orchestrator.aio",
    "AsyncListing": "orchestrator.listing",
    "AsyncOrchestrator": "orchestrator.aio",
    "AsyncTurnHandle": "orchestrator.aio",
    "BulkResult": "orchestrator.bulk",
    "CancelOutcome": "agentapi.stores",
    "ConversationSummary": "agentapi.stores",
    "GatherHandle": "orchestrator.handle",
    "Listing": "orchestrator.listing",
    "Orchestrator": "orchestrator.client",
    "Paged": "agentapi.stores",
    "TurnEnd": "agentapi.stores",
    "TurnHandle": "orchestrator.handle",
    "TurnRequest": "orchestrator.turn_request",
    "TurnSummary": "agentapi.stores",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
