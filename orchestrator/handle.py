"""`TurnHandle`: wait for a turn, follow it, cancel it, decide about its tool calls."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal, overload

from typing_extensions import Unpack

from agentapi.errors import AgentAPIError, TurnFailed, TurnNotFound
from agentapi.stores import CancelOutcome
from agentapi.turns import (
    Answers,
    ClientOutput,
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
from orchestrator.flows import replies_of
from orchestrator.producer import Producer
from orchestrator.results import last_events, past_events, result_of, still_running
from orchestrator.timeline import Timeline
from orchestrator.turn_request import ForkOptions, fork_request

LOOK_AGAIN: Final = 30.0
"""Seconds without events after which the turn's status is read. A failover may lose events, and a
deleted conversation takes its events with it."""


class TurnHandle:
    """A turn, by its id. A handle holds no resources; any process can create one from the id.

    Attributes:
        turn_id: The turn.
        conversation_id: Its conversation.
    """

    def __init__(self, producer: Producer, turn_id: str, conversation_id: str) -> None:
        self._producer = producer
        self.turn_id = turn_id
        self.conversation_id = conversation_id

    def __repr__(self) -> str:
        return f"TurnHandle({self.turn_id!r}, conversation_id={self.conversation_id!r})"

    def info(self) -> Turn:
        """The turn as it is now, with times, attempts, usage and error.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        return self._producer.store.turn(self.turn_id)

    def status(self) -> TurnStatus:
        """The turn's status. Raises the same errors as `info`."""
        return self.info().status

    def timeline(self) -> Timeline:
        """What happened to the turn, and when; see `Orchestrator.timeline`."""
        return self._producer.timeline(self.turn_id)

    def cancel(self) -> CancelOutcome:
        """Cancel the turn: immediately if it waits, or within a moment if it runs.

        The worker is notified immediately; if the notification is lost, it learns of the
        cancellation at its next heartbeat. Async tools are cancelled at their next await; the
        result of a sync tool is dropped. `on_abort` decides what stays in the history.

        Returns:
            `CANCELLED`; `REQUESTED` for a running turn, which may still complete first (see
            `result`); or `ENDED` if the turn had already ended (see `info`).

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        return self._producer.cancel(self.turn_id)

    def retry(self) -> None:
        """Run the failed turn again from its last recorded step, after the turns that are waiting.

        Its messages are removed from the history, and are added again when it ends.

        Raises:
            TurnNotRetryable: It has not failed.
            ConversationBusy: The conversation has too many turns that have not ended.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        self._producer.retry(self.turn_id)

    def fork(self, **options: Unpack[ForkOptions]) -> TurnHandle:
        """Run the turn again from one of its steps, in a copy; see `Orchestrator.fork`."""
        accepted = self._producer.accept_fork(fork_request(self.turn_id, options))
        return TurnHandle(self._producer, *accepted)

    def pending(self) -> list[PendingCall]:
        """Calls that wait for a decision or for the output of a client tool; see `PendingCall`.

        Includes the calls of turns that this turn waits for.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        return self._producer.pending(self.turn_id)

    def approve(
        self, call_id: str, *, by: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Allow a tool call; the turn continues. Repeating the call changes nothing.

        Args:
            call_id: The id that `pending` shows; of this turn or of one that it waits for.
            by: Who decided, for the record.
            arguments: All arguments for the call, in place of the model's; the model is told.

        Raises:
            InvalidInput: The arguments do not fit the tool's schema; nothing is decided.
            CallNotPending: The call does not wait for a decision, or was rejected.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        verdict = Verdict.APPROVED if arguments is None else Verdict.EDITED
        self._decide(call_id, Decision(verdict=verdict, by=by, arguments=arguments))

    def reject(self, call_id: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Refuse a tool call; the turn continues. Repeating the call changes nothing.

        Args:
            call_id: The id that `pending` shows; of this turn or of one that it waits for.
            reason: Told to the model.
            by: Who decided, for the record.

        Raises:
            CallNotPending: The call does not wait for a decision, or was approved.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        self._decide(call_id, Decision(verdict=Verdict.REJECTED, reason=reason, by=by))

    def answer(self, call_id: str, output: str, *, is_error: bool = False) -> None:
        """Give the output of a client tool's call. Repeating the call changes nothing.

        The turn continues when all its calls of client tools have outputs.

        Args:
            call_id: The id that `pending` shows.
            output: The output, for the model; at most `max_tool_result_bytes`.
            is_error: Whether the call failed; then the output says why.

        Raises:
            CallNotPending: The call does not wait for an output, or has another one.
            InvalidInput: The output is not text, or is too long.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        answers = Answers(outputs={call_id: ClientOutput(text=output, is_error=is_error)})
        self._producer.answer(self.turn_id, answers)

    def _decide(self, call_id: str, decision: Decision) -> None:
        self._producer.decide(self.turn_id, call_id, decision)

    def children(self) -> list[TurnHandle]:
        """The turns that this turn delegated to, in the order of its calls. Available until it
        ends.

        A turn that has just delegated may not have all its children yet.
        """
        handles = [
            TurnHandle(self._producer, child.turn_id, child.conversation_id)
            for child, _ in self._producer.store.calls.children(self.turn_id)
        ]
        # The parent names its children before they are enqueued, so some may not exist yet.
        return [handle for handle in handles if handle.exists()]

    def exists(self) -> bool:
        """Whether the turn was accepted and is still stored."""
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
        """Wait until the turn has ended.

        Args:
            timeout: Longest wait in seconds; no limit when not given.
            output_type: The agent's output type, for a process that does not know the agent. When
                not given, `output` is plain JSON in such a process.

        Raises:
            TurnFailed: It failed; the message says why.
            TurnCancelled: It was cancelled.
            TurnTimeout: It has not ended yet. It continues, and you can wait for it again.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
            StoreFault: The turn's events cannot be read.
            ValidationError: The reply is not a valid `output_type` (pydantic's error).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        turn = self.info()
        # Loops if the message joins another turn in the meantime, because that turn answers it.
        while not turn.status.ended:
            for _ in self._follow(turn.turn_id, turn.last_event, deadline):
                pass
            turn = self.info()
        return result_of(turn, self._producer.output_of(turn, output_type))

    def events(self, after: int = -1, timeout: float | None = None) -> Iterator[Event]:
        """The turn's past and future events, until the one that ends it.

        Args:
            after: Number of the last event already seen; -1 for all events.
            timeout: Maximum seconds until the turn ends; no limit when not given.

        Raises:
            TurnTimeout: The turn has not ended yet.
            TurnNotFound: The turn does not exist.
            StoreUnavailable: Redis is out of reach.
            StoreFault: The turn's events cannot be read.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        past, more = past_events(self._producer.store, self.turn_id, after)
        yield from past
        if more:
            yield from self._follow(self.turn_id, past[-1].number if past else after, deadline)

    def _follow(self, turn_id: str, after: int, deadline: float | None) -> Iterator[Event]:
        # The follower's thread fills it and must never wait for a slow reader, so it has no limit.
        arrived: SimpleQueue[Delivery] = SimpleQueue()
        follower = self._producer.follower

        def take(batch: Sequence[tuple[Subscription, Delivery]]) -> None:
            for _, delivery in batch:
                arrived.put(delivery)

        subscription = follower.subscribe(turn_id, after, take)
        try:
            while True:
                remaining = math.inf if deadline is None else deadline - time.monotonic()
                try:
                    delivery = arrived.get(timeout=max(0.0, min(remaining, LOOK_AGAIN)))
                except Empty:
                    if remaining <= LOOK_AGAIN:
                        raise still_running(self.turn_id) from None
                    # No events for a while. They may have been lost in a failover, so read the
                    # turn.
                    last = last_events(self._producer.store, turn_id, after)
                    if last is None:
                        continue
                    yield from last
                    return
                if isinstance(delivery, AgentAPIError):
                    raise delivery
                for event in delivery:
                    after = event.number
                    yield event
                    # A newer release may use another kind of end event, so the turn's status
                    # decides.
                    if event.type.ends or (event.type is EventType.UNKNOWN and self._has_ended()):
                        return
        finally:
            follower.unsubscribe(subscription)

    def _has_ended(self) -> bool:
        return self.info().status.ended


class GatherHandle(TurnHandle):
    """A turn that waits for several others."""

    @overload
    def replies(
        self, timeout: float | None = None, *, return_exceptions: Literal[False] = False
    ) -> Sequence[str]: ...

    @overload
    def replies(
        self, timeout: float | None = None, *, return_exceptions: Literal[True]
    ) -> Sequence[str | TurnFailed]: ...

    def replies(
        self, timeout: float | None = None, *, return_exceptions: bool = False
    ) -> Sequence[str | TurnFailed]:
        """Wait for all turns; returns their replies in the order of the call.

        Args:
            timeout: Longest wait in seconds; no limit when not given.
            return_exceptions: Whether to return a failed turn's error in place of its reply,
                instead of raising it.

        Raises:
            TurnFailed: One of them failed; the others have ended too.
            TurnTimeout: Not all have ended yet. They continue.
        """
        result = self.result(timeout)
        return replies_of(self.turn_id, result, return_exceptions=return_exceptions)
