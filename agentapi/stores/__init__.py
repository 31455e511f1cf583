"""Where turns and conversations live: one protocol, on Redis and in memory."""

from agentapi.stores.base import (
    Accepted,
    Cancellation,
    CancelOutcome,
    Claim,
    Ending,
    Lease,
    NewEvent,
    Refusal,
    RefusalReason,
    Refused,
    Renewal,
    TurnStore,
    Wakeup,
)
from agentapi.stores.in_memory import InMemoryTurnStore
from agentapi.stores.redis_store import RedisTurnStore

__all__ = [
    "Accepted",
    "CancelOutcome",
    "Cancellation",
    "Claim",
    "Ending",
    "InMemoryTurnStore",
    "Lease",
    "NewEvent",
    "RedisTurnStore",
    "Refusal",
    "RefusalReason",
    "Refused",
    "Renewal",
    "TurnStore",
    "Wakeup",
]
