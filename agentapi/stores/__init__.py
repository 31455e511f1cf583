"""Where turns and conversations live: one protocol, on Redis and in memory."""

from agentapi.stores.answers import (
    Accepted,
    Cancellation,
    CancelOutcome,
    Claim,
    Election,
    Ending,
    NewEvent,
    Perished,
    Refusal,
    RefusalReason,
    Refused,
    Renewal,
    Unreadable,
)
from agentapi.stores.calls import CallStore, Errand, ErrandKind, Suspended
from agentapi.stores.in_memory.store import InMemoryTurnStore
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.protocol import TurnStore
from agentapi.stores.redis.store import RedisTurnStore

__all__ = [
    "Accepted",
    "CancelOutcome",
    "CallStore",
    "Cancellation",
    "Claim",
    "Election",
    "Ending",
    "Errand",
    "ErrandKind",
    "InMemoryTurnStore",
    "Lease",
    "NewEvent",
    "Perished",
    "RedisTurnStore",
    "Refusal",
    "RefusalReason",
    "Refused",
    "Renewal",
    "Suspended",
    "TurnStore",
    "Unreadable",
    "Wakeup",
]
