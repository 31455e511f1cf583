"""`TurnHandle`: what a producer holds of a turn it enqueued."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, overload

from agentapi.errors import (
    AgentAPIError,
    StoreUnavailable,
    TurnCancelled,
    TurnFailed,
    TurnNotFound,
    TurnTimeout,
)
from agentapi.stores import CancelOutcome
from agentapi.turns import (
    Decision,
    Event,
    EventType,
    PendingCall,
    Turn,
    TurnResult,
    TurnStatus,
    Verdict,
)
from agentapi.turns.model import OutputT
from orchestrator.events.follower import Delivery, Subscription

if TYPE_CHECKING:
    from orchestrator.client import Orchestrator

LOOK_AGAIN: Final = 30.0
"""Seconds without an event after which the turn itself is looked at: its events may be lost, as in
a failover, or deleted with its conversation."""


class TurnHandle:
    """A turn, by its id. Costs nothing to keep; any process can make one from the id.

    Attributes:
        turn_id: The turn.
        conversation_id: Its conversation.
    """

    def __init__(self, orchestrator: Orchestrator, turn_id: str, conversation_id: str) -> None:
        self._orchestrator = orchestrator
        self.turn_id = turn_id
        self.conversation_id = conversation_id

    def __repr__(self) -> str:
        return f"TurnHandle({self.turn_id!r}, conversation_id={self.conversation_id!r})"

    def info(self) -> Turn:
        """The turn as it stands, with times, attempts, usage and error.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        return self._orchestrator.store.turn(self.turn_id)

    def status(self) -> TurnStatus:
        """Where the turn stands; raises as `info`."""
        return self.info().status

    def cancel(self) -> CancelOutcome:
        """Cancel the turn: a waiting one at once, a running one at its worker's next beat.

        Its tools are cancelled with it: async ones at their next await, what sync ones give is
        dropped. It leaves nothing in the history, or what `on_abort` says.

        Returns:
            What it did: `CANCELLED`, `REQUESTED`, or `ENDED` when there was nothing to cancel.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        return self._orchestrator.cancel(self.turn_id)

    def retry(self) -> None:
        """Run the failed turn again, from its last recorded step, behind those that wait.

        Raises:
            TurnNotRetryable: It has not failed, or left its messages in the history.
            ConversationBusy: The conversation has too many turns that have not ended.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        self._orchestrator.retry(self.turn_id)

    def pending(self) -> list[PendingCall]:
        """The tool calls that wait for a person's decision, those of turns it waits for included.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        return pending_calls(self._orchestrator, self.turn_id)

    def approve(self, call_id: str, *, by: str | None = None) -> None:
        """Let a call be made; the turn goes on at once. Saying it again does nothing.

        Args:
            call_id: As `pending` gives it; of this turn or of one that it waits for.
            by: Who decided, for the record.

        Raises:
            CallNotPending: The call waits for no decision, or was rejected.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        self._decide(call_id, Decision(verdict=Verdict.APPROVED, by=by))

    def reject(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Do not let a call be made; the turn goes on at once. Saying it again does nothing.

        Args:
            call_id: As `pending` gives it; of this turn or of one that it waits for.
            reason: For the model.
            by: Who decided, for the record.

        Raises:
            CallNotPending: The call waits for no decision, or was decided otherwise.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        self._decide(call_id, Decision(verdict=Verdict.REJECTED, reason=reason, by=by))

    def _decide(self, call_id: str, decision: Decision) -> None:
        # The call of a turn below is found by its question; whatever else is asked about is for
        # this turn to answer.
        asked = (call.turn_id for call in self.pending() if call.call_id == call_id)
        self._orchestrator.decide(next(asked, self.turn_id), call_id, decision)

    def children(self) -> list[TurnHandle]:
        """The turns that it delegated to, in the order of its calls, while it has not ended.

        Those that are there: a turn that has just delegated is a moment ahead of them.
        """
        handles = [
            TurnHandle(self._orchestrator, child.turn_id, child.conversation_id)
            for child, _ in self._orchestrator.store.calls.children(self.turn_id)
        ]
        return [handle for handle in handles if handle.exists()]

    def exists(self) -> bool:
        """Whether the turn was accepted and is still kept."""
        try:
            self.info()
        except TurnNotFound:
            return False
        return True

    @overload
    def result(self, timeout: float | None = None) -> TurnResult: ...

    @overload
    def result(
        self, timeout: float | None = None, *, output_type: type[OutputT]
    ) -> TurnResult[OutputT]: ...

    def result(
        self, timeout: float | None = None, *, output_type: type[Any] | None = None
    ) -> TurnResult[Any]:
        """Wait for the turn's end, woken by its events.

        Args:
            timeout: Longest wait in seconds; for ever when not given.
            output_type: The agent's, if this process does not know the agent; else `output` is
                plain JSON.

        Raises:
            TurnFailed: It failed; says why.
            TurnCancelled: It was cancelled.
            TurnTimeout: It has not ended yet. It goes on, and can be waited for again.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
            StoreFault: The turn's events cannot be read.
            ValidationError: The reply does not fit `output_type` (pydantic's error).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        turn = self.info()
        if not turn.status.ended:
            for _ in self._follow(turn.last_event, deadline):
                pass
            turn = self.info()
        return outcome(turn, self._orchestrator.output_of(turn, output_type))

    def events(self, after: int = -1, timeout: float | None = None) -> Iterator[Event]:
        """The turn's events, past and to come, until the one that ends it.

        Args:
            after: Number of the last event already seen, to continue behind it; -1 for all.
            timeout: Longest time in seconds until the end; for ever when not given.

        Raises:
            TurnTimeout: The turn has not ended yet.
            TurnNotFound: There is no such turn.
            StoreUnavailable: Redis is out of reach.
            StoreFault: The turn's events cannot be read.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        past, more = past_events(self._orchestrator, self.turn_id, after)
        yield from past
        if more:
            yield from self._follow(past[-1].number if past else after, deadline)

    def _follow(self, after: int, deadline: float | None) -> Iterator[Event]:
        arrived: SimpleQueue[Delivery] = SimpleQueue()
        follower = self._orchestrator.follower

        def take(batch: Sequence[tuple[Subscription, Delivery]]) -> None:
            for _, delivery in batch:
                arrived.put(delivery)

        subscription = follower.subscribe(self.turn_id, after, take)
        try:
            while True:
                remaining = math.inf if deadline is None else deadline - time.monotonic()
                try:
                    delivery = arrived.get(timeout=max(0.0, min(remaining, LOOK_AGAIN)))
                except Empty:
                    if remaining <= LOOK_AGAIN:
                        raise still_running(self.turn_id) from None
                    last = last_events(self._orchestrator, self.turn_id, after)
                    if last is None:
                        continue
                    yield from last
                    return
                if isinstance(delivery, AgentAPIError):
                    raise delivery
                for event in delivery:
                    after = event.number
                    yield event
                    if event.type.ends or (event.type is EventType.UNKNOWN and self._has_ended()):
                        return
        finally:
            follower.unsubscribe(subscription)

    def _has_ended(self) -> bool:
        return self.info().status.ended


def pending_calls(orchestrator: Orchestrator, turn_id: str) -> list[PendingCall]:
    """Questions of a turn and of all that it waits for; children that are gone ask nothing."""
    calls = orchestrator.store.calls
    found = calls.pending(turn_id)
    for child, awaited in calls.children(turn_id):
        if awaited:
            with contextlib.suppress(TurnNotFound):
                found += pending_calls(orchestrator, child.turn_id)
    return found


def past_events(orchestrator: Orchestrator, turn_id: str, after: int) -> tuple[list[Event], bool]:
    """Events that are there already, and whether more will come.

    The events of a turn that ended long ago are gone; nobody should wait for them.
    """
    past = orchestrator.store.events({turn_id: after}, 0).get(turn_id, [])
    if past and past[-1].type.ends:
        return past, False
    turn = orchestrator.store.turn(turn_id)
    if not turn.status.ended:
        return past, True
    seen = past[-1].number if past else after
    past += orchestrator.store.events({turn_id: seen}, 0).get(turn_id, [])
    return past, False


def last_events(orchestrator: Orchestrator, turn_id: str, after: int) -> list[Event] | None:
    """What is left of the events of a turn that has ended; None while it has not.

    Raises:
        TurnNotFound: It was deleted.
    """
    try:
        past, more = past_events(orchestrator, turn_id, after)
    except StoreUnavailable:
        return None
    return None if more else past


def still_running(turn_id: str) -> TurnTimeout:
    """The error of a wait that ended before the turn."""
    return TurnTimeout(
        f"turn {turn_id} has not ended within the timeout; it goes on: wait again with a longer "
        "timeout, or cancel() it. `agentapi doctor` tells whether workers are there"
    )


def outcome(turn: Turn, output: Any = None) -> TurnResult[Any]:
    """The result of an ended turn.

    Raises:
        TurnFailed: It failed.
        TurnCancelled: It was cancelled.
    """
    match turn.status:
        case TurnStatus.COMPLETED:
            return TurnResult(
                text=turn.text or "",
                messages=turn.messages,
                usage=turn.usage,
                steps=turn.steps,
                agent=turn.answered_by or turn.agent,
                output=output,
            )
        case TurnStatus.CANCELLED:
            raise TurnCancelled(
                f"turn {turn.turn_id} was cancelled", turn_id=turn.turn_id, error_code="cancelled"
            )
        case TurnStatus.FAILED:
            code = turn.error.code if turn.error else "internal"
            why = turn.error.message if turn.error else "no reason was kept"
            raise TurnFailed(
                f"turn {turn.turn_id} failed ({code}): {why}",
                turn_id=turn.turn_id,
                error_code=code,
            )
        case _:
            raise TurnNotFound(f"turn {turn.turn_id} has not ended")
