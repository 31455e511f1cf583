"""Finds where the parts of a turn begin and end in its events."""

from __future__ import annotations

from agentapi.turns import Event, EventType, Turn
from orchestrator.gateway.openai.endings import goes_on
from orchestrator.gateway.turn_labels import labels_of


class PartBounds:
    """Tells which of a turn's events belong to one of its parts.

    Attributes:
        passed: Number of parts that have ended.
        approvals: Ids of the calls for which the last of them requested approval.
    """

    def __init__(self, turn: Turn, number: int) -> None:
        """Start before the first event.

        Args:
            turn: The turn, in any state.
            number: The part, from 0.
        """
        self._number = number
        self._elsewhere = labels_of(turn).approvals_elsewhere
        self._responses = -1
        self.passed = 0
        self.approvals: frozenset[str] = frozenset()

    def within(self, event: Event) -> bool:
        """Whether an event belongs to the part. Call it for all events in order."""
        if event.type is EventType.PARKED:
            self._parked(event)
        return self.passed == self._number

    def _parked(self, event: Event) -> None:
        reason, responses = event.data.get("reason"), event.data.get("responses")
        asks = reason == "client" or (reason == "approval" and not self._elsewhere)
        # A turn that parks again without a new response repeats its question.
        if asks and isinstance(responses, int) and responses != self._responses:
            self._responses = responses
            self.passed += 1
            asked = event.data.get("approvals" if reason == "client" else "calls", ())
            self.approvals = frozenset(str(call["call"]) for call in asked)


def is_response(event: Event) -> bool:
    """Whether the event of a step is of an accepted model response."""
    data = event.data
    return data["kind"] == "model" and not data.get("rejected") and not goes_on(data)
