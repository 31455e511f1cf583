"""The end of an attempt: a thread writes the decision and wakes the turns that wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from agentapi import Settings
from agentapi.logs import binding
from agentapi.stores import Claim, Ending, ErrandKind, Wakeup, WorkerStore
from agentapi.turns import HeldCalls, TurnStatus
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.outage import Outage, ride_out
from workers.turns import measuring, tracing
from workers.turns.claimed import ClaimedTurn, claim_line
from workers.turns.decision import (
    Abandon,
    AbandonReason,
    Commit,
    HandBack,
    Park,
    Suspend,
    TurnDecision,
)
from workers.turns.endings import broken, stopped
from workers.turns.events import EventLog
from workers.turns.running import RunningTurns
from workers.turns.summary import Summary, failure, lease_lost, of_ending, written
from workers.turns.writing import TurnWriter

log = logging.getLogger("agentapi.turn")


@dataclass(frozen=True, kw_only=True)
class TurnCloser:
    """Ends attempts, in a thread.

    Attributes:
        ended: Called after a turn's end was written.
    """

    settings: Settings
    store: WorkerStore
    dispatcher: Dispatcher
    errands: Errands
    events: EventLog
    writer: TurnWriter
    running: RunningTurns
    outage: Outage
    ended: Callable[[], object]

    def close(self, turn: ClaimedTurn, decision: TurnDecision) -> Summary:
        """Act on the decision about a turn, and release the turn. Never raises.

        An error that does not come from the store ends the turn as failed, because another attempt
        would meet the same error.
        """
        summary: Summary = {}
        try:
            with binding(turn.fields):
                summary = self._close(turn, decision)
            measuring.attempt_ended(turn, summary)
            return summary
        finally:
            tracing.ended(turn.span, turn, summary)
            # Last: until now the heartbeat renews the lease.
            self.running.remove(turn.running)
            self.events.forget(turn.claim.lease)

    def _close(self, turn: ClaimedTurn, decision: TurnDecision) -> Summary:
        try:
            return self._written(turn, lambda: self._act(turn, decision))
        except BaseException as fault:
            log.error(claim_line("turn.not_written", turn.claim, error=type(fault).__name__))
            return self._fail(turn, fault)

    def _fail(self, turn: ClaimedTurn, fault: BaseException) -> Summary:
        """End the turn as failed, without the data that may be impossible to write."""
        try:
            return self._written(turn, lambda: self._commit(turn, broken(fault, turn.progress)))
        except BaseException as error:
            # The lease remains: when it expires, another worker tries.
            log.error(claim_line("turn.not_ended", turn.claim, error=type(error).__name__))
            return {"status": "not_ended", "attempt": turn.claim.turn.attempt}

    def _written(self, turn: ClaimedTurn, write: Callable[[], Summary]) -> Summary:
        return written(turn.claim.lease, turn.claim.turn.attempt, self.outage, write)

    def _act(self, turn: ClaimedTurn, decision: TurnDecision) -> Summary:
        match decision:
            case Commit(ending=ending):
                return self._commit(turn, ending)
            case Park():
                return self._park(turn, decision)
            case Suspend(held=held):
                return self._suspended(turn.claim, held)
            case HandBack():
                return self._hand_back(turn.claim)
            case Abandon(reason=AbandonReason.LEASE_LOST):
                return lease_lost(turn.claim.lease, turn.claim.turn.attempt)
            case Abandon(reason=reason):
                # The sweep finds the turn when Redis is back.
                return {"status": reason.value}

    def _commit(self, turn: ClaimedTurn, ending: Ending) -> Summary:
        """End the turn, and wake the conversation's next one."""
        claim, stored = turn.claim, turn.claim.turn
        wakeup = self.writer.write(turn.running, lambda: self.store.commit(claim.lease, ending))
        measuring.turn_ended(turn, ending)
        if ending.status is TurnStatus.FAILED:
            log.warning(
                claim_line("turn.failed", claim, steps=ending.steps, **failure(claim.turn, ending))
            )
        else:
            log.info(claim_line(f"turn.{ending.status}", claim, steps=ending.steps))
        # The turn has ended for good: the steps below may fail or be lost, and the sweep repeats
        # them.
        self._aside(claim, lambda: self.dispatcher.send(wakeup))
        if stored.parent_id is not None:
            self._aside(claim, lambda: self.errands.of_turn(ErrandKind.DELIVER, stored.turn_id))
        self.ended()
        # Last, because it matters least: if it is lost, the conversation's next turn does it.
        self._aside(claim, lambda: turn.work.after(claim, ending))
        return of_ending(ending, stored.attempt)

    def _park(self, turn: ClaimedTurn, park: Park) -> Summary:
        """Free the worker until the provider is tried again."""
        claim = turn.claim
        parked = self.writer.write(
            turn.running,
            lambda: self.store.park(
                claim.lease,
                park.delay,
                failures=park.failures,
                steps=len(turn.progress.steps),
                reason=park.kind,
                names=park.names,
                lasted=park.lasted,
            ),
        )
        # The turn was cancelled after the model call failed, and parking would ignore that.
        if not parked:
            return self._commit(turn, stopped(TurnStatus.CANCELLED, turn.progress))
        why = {"waits_for": " or ".join(park.names), "failures": park.failures}
        log.info(claim_line("turn.parked", claim, seconds=round(park.delay, 1), **why))
        return {"status": "parked", "attempt": claim.turn.attempt, "seconds": park.delay}

    def _suspended(self, claim: Claim, held: HeldCalls) -> Summary:
        """The turn waits: start the child turns that it waits for."""
        turn_id = claim.turn.turn_id
        # The executor has parked the turn. Children start only now, so that no child runs without
        # its parent knowing of it.
        if held.children:
            self._aside(claim, lambda: self.errands.of_turn(ErrandKind.START, turn_id))
        log.info(claim_line("turn.suspended", claim))
        return {"status": "parked", "attempt": claim.turn.attempt}

    def _hand_back(self, claim: Claim) -> Summary:
        # Text since the last recorded step is dropped: the next attempt begins with a reset.
        ride_out(
            lambda: self.store.release(claim.lease),
            outage=self.outage,
            # The worker is shutting down: the lease expires by itself if Redis stays unreachable.
            patience=self.settings.redis_timeout,
        )
        lease = claim.lease
        wakeup = Wakeup(
            conversation_id=lease.conversation_id, turn_id=lease.turn_id, agent=claim.turn.agent
        )
        # Otherwise the turn would wait for the next sweep (promise 7).
        self._aside(claim, lambda: self.dispatcher.send(wakeup))
        log.info(claim_line("turn.handed_back", claim))
        return {"status": "handed_back", "attempt": claim.turn.attempt}

    def _aside(self, claim: Claim, work: Callable[[], object]) -> None:
        """Do early what the sweep would do later: the turn is closed even if this fails."""
        try:
            work()
        except BaseException as error:
            log.error(claim_line("turn.left_to_the_sweep", claim, error=type(error).__name__))
