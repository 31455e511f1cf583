"""Stores of turns and conversations: the protocols, and both implementations."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.stores.answers import (
        Accepted,
        Cancellation,
        CancelOutcome,
        Claim,
        Election,
        Ending,
        NewEvent,
        Perished,
        Recorded,
        Refusal,
        RefusalReason,
        Refused,
        Renewal,
        Unreadable,
    )
    from agentapi.stores.calls import CallStore, Errand, ErrandKind, Suspended
    from agentapi.stores.conversations import (
        ConversationRecord,
        ConversationStore,
        Dropped,
        ForgottenTurn,
        Fork,
        OpenConversation,
        Page,
        Place,
        Reading,
        Search,
        SearchOn,
        StoredMessage,
        Unended,
    )
    from agentapi.stores.in_memory.store import InMemoryTurnStore
    from agentapi.stores.lease import Lease, Wakeup
    from agentapi.stores.protocol import (
        HistoryStore,
        ProducerStore,
        SweepStore,
        TurnStore,
        WorkerStore,
    )
    from agentapi.stores.redis.store import RedisTurnStore

__all__ = [
    "Accepted",
    "CallStore",
    "CancelOutcome",
    "Cancellation",
    "Claim",
    "ConversationRecord",
    "ConversationStore",
    "Dropped",
    "Election",
    "Ending",
    "Errand",
    "ErrandKind",
    "ForgottenTurn",
    "Fork",
    "HistoryStore",
    "InMemoryTurnStore",
    "Lease",
    "NewEvent",
    "OpenConversation",
    "Page",
    "Perished",
    "Recorded",
    "Place",
    "ProducerStore",
    "Reading",
    "RedisTurnStore",
    "Refusal",
    "RefusalReason",
    "Refused",
    "Renewal",
    "Search",
    "SearchOn",
    "StoredMessage",
    "Suspended",
    "SweepStore",
    "TurnStore",
    "Unended",
    "Unreadable",
    "Wakeup",
    "WorkerStore",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.stores.answers": (
            "Accepted",
            "CancelOutcome",
            "Cancellation",
            "Claim",
            "Election",
            "Ending",
            "NewEvent",
            "Perished",
            "Recorded",
            "Refusal",
            "RefusalReason",
            "Refused",
            "Renewal",
            "Unreadable",
        ),
        "agentapi.stores.calls": (
            "CallStore",
            "Errand",
            "ErrandKind",
            "Suspended",
        ),
        "agentapi.stores.conversations": (
            "ConversationRecord",
            "ConversationStore",
            "Dropped",
            "ForgottenTurn",
            "Fork",
            "OpenConversation",
            "Page",
            "Place",
            "Reading",
            "Search",
            "SearchOn",
            "StoredMessage",
            "Unended",
        ),
        "agentapi.stores.in_memory.store": ("InMemoryTurnStore",),
        "agentapi.stores.lease": (
            "Lease",
            "Wakeup",
        ),
        "agentapi.stores.protocol": (
            "HistoryStore",
            "ProducerStore",
            "SweepStore",
            "TurnStore",
            "WorkerStore",
        ),
        "agentapi.stores.redis.store": ("RedisTurnStore",),
    },
)
