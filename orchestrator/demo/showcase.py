"""Example conversations with the agents of `examples.agents`, one of each kind."""

from __future__ import annotations

from typing import Final

from orchestrator.client import Orchestrator
from orchestrator.turn_request import TurnRequest

SOON: Final = 3.0
"""Deadline in seconds of the turn that waits too long and fails."""

_ASK_LOOKUP: Final = 'Where is my parcel? Please use lookup_order {"order_id": "7"}'
_TWO_CALLS: Final = (
    '/lookup_order {"order_id": "8"}\n/open_ticket {"subject": "Order 8: paid twice"}'
)
_TOPICS: Final = '/look_into {"topics": ["message brokers", "leases", "journals"]}'


def showcase() -> list[TurnRequest]:
    """The turns: with tools, a hand-over and children; one waits for approval, and one fails."""
    return [
        _turn("support", _ASK_LOOKUP, "user:ada", user="ada"),
        _turn("support", "And when does it arrive?", "user:ada", user="ada"),
        _turn("support", "What did I say so far?", "user:ada", user="ada"),
        _turn("support", _TWO_CALLS, "user:grace", user="grace"),
        _turn("support", "/transfer_to_billing", "user:grace", user="grace"),
        _turn("billing", "Is my invoice right?", "user:grace", user="grace"),
        _turn("editor", _TOPICS, "report:queues", user="alan"),
        _turn("support", _refund("8", 240), "user:edsger", user="edsger"),
        _turn("support", _refund("9", 80), "user:barbara", user="barbara"),
        # Nobody decides in time.
        _turn("support", _refund("7", 1200), "user:donald", user="donald", deadline=SOON),
        _turn("plan", "Plan the move to the new warehouse.", "plan:warehouse", user="alan"),
    ]


def _turn(
    agent: str, message: str, conversation_id: str, *, user: str, deadline: float | None = None
) -> TurnRequest:
    return TurnRequest(
        agent=agent,
        message=message,
        conversation_id=conversation_id,
        user_id=user,
        stream=True,
        deadline=deadline,
    )


def _refund(order_id: str, amount: int) -> str:
    return f'Please use refund {{"order_id": "{order_id}", "amount": {amount}}}'


def begin_showcase(orchestrator: Orchestrator) -> None:
    """Enqueue the example turns that do not exist yet. Does not wait for them.

    Raises:
        StoreUnavailable: Redis is out of reach.
    """
    requests = showcase()
    there = {summary.conversation_id for summary in orchestrator.conversations(user_id="ada")}
    if requests[0].conversation_id not in there:
        orchestrator.enqueue_many(requests)
