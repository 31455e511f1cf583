"""The end of an attempt: written down once, whatever happens, and told to those who wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.compaction import COMPACT
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import TurnSuspended
from agentapi.errors import LeaseLost, StoreUnavailable, TurnParked
from agentapi.stores import Claim, Ending, ErrandKind, Lease, TurnStore, Wakeup
from agentapi.turns import Turn, TurnStatus
from workers.compaction import Compactor
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.outage import Outage, ride_out
from workers.turns.claimed import ClaimedTurn, Outcome, claim_line
from workers.turns.endings import broken, stopped
from workers.turns.events import EventLog
from workers.turns.running import RunningTurn, RunningTurns, StopReason

T = TypeVar("T")

log = logging.getLogger("agentapi.turn")


@dataclass(frozen=True, kw_only=True)
class TurnCloser:
    """Ends attempts, in a thread."""

    settings: Settings
    store: TurnStore
    dispatcher: Dispatcher
    errands: Errands
    compactor: Compactor
    events: EventLog
    running: RunningTurns
    outage: Outage

    def close(self, turn: ClaimedTurn, outcome: Outcome) -> dict[str, Any]:
        """Write what became of a turn, and wake those who wait for it. Raises nothing.

        A fault that is not the store's ends the turn as failed: another attempt would only meet it
        again.

        Returns:
            How the turn stands now, without content.
        """
        try:
            return self._close(turn, outcome)
        finally:
            self.running.remove(turn.running)
            self.events.forget(turn.claim.lease)

    def _close(self, turn: ClaimedTurn, outcome: Outcome) -> dict[str, Any]:
        try:
            return self._conclude(turn, outcome)
        except LeaseLost:
            return self._lost(turn.claim)
        except StoreUnavailable as error:
            return self.unavailable(error)
        except BaseException as fault:
            log.error(claim_line("turn.not_written", turn.claim, error=type(fault).__name__))
            return self._give_up(turn, fault)

    def _give_up(self, turn: ClaimedTurn, fault: BaseException) -> dict[str, Any]:
        """End the turn as failed, with nothing in it that could be what cannot be written."""
        try:
            return self._end(turn.agent, turn.claim, turn.running, broken(fault, turn.progress))
        except LeaseLost:
            return self._lost(turn.claim)
        except StoreUnavailable as error:
            return self.unavailable(error)
        except BaseException as error:
            # What is left is the lease: when it expires, another worker tries.
            log.error(claim_line("turn.not_ended", turn.claim, error=type(error).__name__))
            return {"status": "not_ended", "attempt": turn.claim.turn.attempt}

    def _conclude(self, turn: ClaimedTurn, outcome: Outcome) -> dict[str, Any]:
        claim, running = turn.claim, turn.running
        match outcome:
            case Ending() as ending:
                return self._end(turn.agent, claim, running, ending)
            case TurnParked() as pause:
                return self._park(claim, running, turn.progress, pause)
            case TurnSuspended():
                return self._suspended(claim)
            case LeaseLost() | StoreUnavailable() as error:
                raise error
            case None:
                return self._hand_back(claim)

    def _lost(self, claim: Claim) -> dict[str, Any]:
        log.warning(claim_line("turn.lost", claim))
        return {"status": "lost", "attempt": claim.turn.attempt}

    def unavailable(self, error: StoreUnavailable) -> dict[str, Any]:
        """How a turn stands that could not be written: the sweep finds it."""
        self.outage.begins(error)
        return {"status": error.code}

    def _end(
        self, agent: AgentDefinition | None, claim: Claim, running: RunningTurn, ending: Ending
    ) -> dict[str, Any]:
        """Commit, and wake the conversation's next turn."""
        wakeup = self.write(running, lambda: self.store.commit(running.lease, ending))
        code = {"error": ending.error.code} if ending.error else {}
        log.info(claim_line(f"turn.{ending.status}", claim, steps=ending.steps, **code))
        self._aside(claim, lambda: self.dispatcher.send(wakeup))
        turn = claim.turn
        if turn.parent_id is not None:
            self._aside(claim, lambda: self.errands.of_turn(ErrandKind.DELIVER, turn.turn_id))
        if agent is not None and turn.agent != COMPACT:
            self._aside(claim, lambda: self.compactor.after(agent, claim, ending))
        return {
            "status": ending.status.value,
            "attempt": turn.attempt,
            "steps": ending.steps,
            "tokens": ending.usage.total_tokens,
            **code,
        }

    def _aside(self, claim: Claim, work: Callable[[], object]) -> None:
        """Do what the sweep would do otherwise: the turn has ended, whatever comes of it."""
        try:
            work()
        except BaseException as error:
            log.error(claim_line("turn.left_to_the_sweep", claim, error=type(error).__name__))

    def _park(
        self, claim: Claim, running: RunningTurn, progress: TurnProgress, pause: TurnParked
    ) -> dict[str, Any]:
        """Free the worker until the provider wants to be asked again."""
        parked = self.write(
            running,
            lambda: self.store.park(
                claim.lease,
                pause.delay,
                failures=pause.failures,
                steps=len(progress.steps),
                reason="provider",
            ),
        )
        if not parked:
            return self._end(None, claim, running, stopped(TurnStatus.CANCELLED, progress))
        log.info(claim_line("turn.parked", claim, seconds=round(pause.delay, 1)))
        return {"status": "parked", "attempt": claim.turn.attempt, "seconds": pause.delay}

    def _suspended(self, claim: Claim) -> dict[str, Any]:
        """The turn waits: start what it waits for."""
        turn_id = claim.turn.turn_id
        self._aside(claim, lambda: self.errands.of_turn(ErrandKind.START, turn_id))
        log.info(claim_line("turn.suspended", claim))
        return {"status": "parked", "attempt": claim.turn.attempt}

    def write(self, running: RunningTurn, transition: Callable[[], T]) -> T:
        """Make the transition that ends this attempt, after the events that came before it.

        Raises:
            LeaseLost: Another worker owns the conversation.
            StoreUnavailable: The patience is at its end.
        """

        def write() -> T:
            self.events.flush()
            return transition()

        return ride_out(
            write,
            outage=self.outage,
            give_up=lambda: running.reason is StopReason.LEASE_LOST,
        )

    def _hand_back(self, claim: Claim) -> dict[str, Any]:
        ride_out(
            lambda: self.store.release(claim.lease),
            outage=self.outage,
            patience=self.settings.redis_timeout,
        )
        self._aside(claim, lambda: self.dispatcher.send(_wakeup(claim.lease, claim.turn)))
        log.info(claim_line("turn.handed_back", claim))
        return {"status": "handed_back", "attempt": claim.turn.attempt}


def _wakeup(lease: Lease, turn: Turn) -> Wakeup:
    return Wakeup(conversation_id=lease.conversation_id, turn_id=lease.turn_id, agent=turn.agent)
