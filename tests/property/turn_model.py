"""What a conversation should look like, for the state machine of the turn protocol."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest

from agentapi.conversation.messages import AssistantMessage, Message, ToolMessage, UserMessage
from agentapi.stores import Lease
from agentapi.turns import Step, TurnStatus


@dataclass
class Expected:
    """What a conversation should look like."""

    accepted: list[str] = field(default_factory=list)
    inbox: list[str] = field(default_factory=list)
    history: list[Message] = field(default_factory=list)
    steps: dict[str, list[Step]] = field(default_factory=dict)
    recorded: Counter[str] = field(default_factory=Counter)
    status: dict[str, TurnStatus] = field(default_factory=dict)
    cancel_asked: set[str] = field(default_factory=set)
    keeps: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    retries: Counter[str] = field(default_factory=Counter)
    merged: dict[str, str] = field(default_factory=dict)
    woken: dict[str, str | None] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)
    finished: list[str] = field(default_factory=list)
    batches: Counter[Lease] = field(default_factory=Counter)
    shown: Counter[str] = field(default_factory=Counter)
    covered: int = 0
    lease: Lease | None = None
    lease_live: bool = False
    epoch: int = 0
    generation: int = 0


def valid(history: list[Message]) -> bool:
    """Whether every provider accepts it: each call has its result, each turn its reply."""
    open_calls: set[str] = set()
    for message, following in zip_longest(history, history[1:]):
        if isinstance(message, AssistantMessage):
            open_calls = {call.id for call in message.tool_calls}
        elif isinstance(message, ToolMessage):
            open_calls.discard(message.call_id)
        if (following is None or isinstance(following, UserMessage)) and (
            open_calls or not isinstance(message, AssistantMessage)
        ):
            return False
    return True
