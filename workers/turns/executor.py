"""The main part of an attempt: the event loop runs the turn until it ends or must wait."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.engine.tool_calls import Suspension
from agentapi.errors import AgentAPIError, DeadlineExceeded, PoisonTurn, StoreUnavailable
from agentapi.logs import bind
from agentapi.signals import RuntimeSignal
from agentapi.stores import Claim, Suspended, WorkerStore
from agentapi.stores.refusals import missed_deadline
from agentapi.turns import CallBook, HeldCalls, TurnResult, TurnStatus
from workers.outage import Outage
from workers.turns.claimed import ClaimedTurn, claim_line
from workers.turns.decision import Commit, Suspend, TurnDecision, decide
from workers.turns.endings import broken, check_deadline, completed, stopped
from workers.turns.events import EventLog
from workers.turns.log import WorkerLog
from workers.turns.work import Attempt
from workers.turns.writing import TurnWriter

log = logging.getLogger("agentapi.turn")


@dataclass(frozen=True, kw_only=True)
class TurnExecutor:
    """Runs claimed turns, and decides how each continues or ends."""

    settings: Settings
    store: WorkerStore
    events: EventLog
    writer: TurnWriter
    outage: Outage

    async def run(self, turn: ClaimedTurn) -> TurnDecision:
        """On the event loop: run the turn until it ends or must wait. Never raises."""
        # This task is the turn's alone, and so are its context variables.
        bind(turn.fields)
        turn.span.enter()
        try:
            return await self._run_or_decide(turn)
        except GeneratorExit:
            raise
        except BaseException as fault:
            # The error is in the code that describes the turn's end, not in the turn.
            self._note_crash(turn, fault)
            return Commit(ending=broken(fault, turn.progress))

    async def _run_or_decide(self, turn: ClaimedTurn) -> TurnDecision:
        try:
            return await self._run(turn)
        except GeneratorExit:
            # The event loop is closing: nothing may be awaited any more.
            raise
        except BaseException as error:
            if isinstance(error, StoreUnavailable):
                self.outage.begins(error)
            elif not isinstance(error, AgentAPIError | RuntimeSignal | asyncio.CancelledError):
                self._note_crash(turn, error)
            return decide(error, turn.progress, turn.running.reason)

    def _note_crash(self, turn: ClaimedTurn, fault: BaseException) -> None:
        log.error(claim_line("turn.crashed", turn.claim, error=type(fault).__name__))

    async def _run(self, turn: ClaimedTurn) -> TurnDecision:
        """Run the turn, and again if what it would wait for has already arrived."""
        claim, progress = turn.claim, turn.progress
        # Cancelled while no worker ran the turn; the heartbeat would notice it only later.
        if claim.turn.cancel_requested:
            return Commit(ending=stopped(TurnStatus.CANCELLED, progress))
        self._check(claim)
        agent = turn.work.agent(claim)
        book = claim.calls
        ends_at = asyncio.get_running_loop().time() + self._time_left(claim)
        while True:
            outcome = await turn.running.run(partial(self._attempt, turn, agent, book, ends_at))
            if isinstance(outcome, TurnResult):
                return Commit(ending=completed(outcome, agent, progress))
            # Here and not in the closer: a decision or reply may have come since the agent loop
            # stopped. Then the store does not park the turn but returns the answers, and the loop
            # continues with them.
            match await self._suspend(turn, outcome.held):
                case Suspended.PARKED:
                    return Suspend(held=outcome.held)
                case Suspended.CANCELLED:
                    return Commit(ending=stopped(TurnStatus.CANCELLED, progress))
                case CallBook() as answers:
                    book = answers

    def _check(self, claim: Claim) -> None:
        """Refuse a turn that must no longer run.

        Raises:
            DeadlineExceeded: Its deadline has passed.
            PoisonTurn: It has killed too many processes.
        """
        check_deadline(claim)
        # Only deaths of a process that ran nothing else count (promise 12).
        if claim.turn.deaths >= self.settings.max_attempts:
            raise PoisonTurn(
                f"turn ran alone in its own process {claim.turn.deaths} times, and the process "
                "died each time: find out in the workers' logs what killed it (memory, a tool that "
                "crashes the process), fix that, then retry the turn"
            )

    async def _suspend(self, turn: ClaimedTurn, held: HeldCalls) -> Suspended | CallBook:
        """Store what the turn waits for and release its lease, unless it need not wait."""
        running = turn.running

        def suspend() -> Suspended | CallBook:
            return self.store.calls.suspend(turn.claim.lease, held)

        return await running.call(lambda: self.writer.write(running, suspend))

    async def _attempt(
        self, turn: ClaimedTurn, agent: AgentDefinition, book: CallBook, ends_at: float
    ) -> TurnResult | Suspension:
        """Do the turn's work, within the turn's time."""
        claim = turn.claim
        turn_log = WorkerLog(
            running=turn.running,
            store=self.store,
            events=self.events,
            journal=list(turn.progress.steps),
            attempt=claim.turn.attempt,
            outage=self.outage,
            steered=claim.turn.steered,
        )
        # The last attempt may have shown text of a step that it never recorded. Readers drop it.
        if claim.turn.stream and claim.turn.attempt > 1:
            await turn_log.reset()
        attempt = Attempt(
            agent=agent,
            claim=claim,
            progress=turn.progress,
            running=turn.running,
            log=turn_log,
            book=book,
        )
        try:
            async with asyncio.timeout_at(ends_at) as deadline:
                return await turn.work.run(attempt)
        except TimeoutError:
            # A TimeoutError of the user's own code is an ordinary failure of the turn.
            if not deadline.expired():
                raise
            raise self._too_late(claim) from None

    def _time_left(self, claim: Claim) -> float:
        """Seconds that this attempt may run."""
        # Measured from the claim, in Redis's time: this machine's clock may be wrong.
        longest, deadline = self.settings.turn_timeout, claim.turn.deadline_at
        return longest if deadline is None else min(longest, deadline - claim.now)

    def _too_late(self, claim: Claim) -> DeadlineExceeded:
        """The error of a turn whose time is up, by its own deadline or by the setting."""
        longest = self.settings.turn_timeout
        if claim.turn.deadline_at is not None and self._time_left(claim) < longest:
            return missed_deadline(claim.turn, claim.turn.deadline_at)
        return DeadlineExceeded(
            f"turn ran longer than {longest:g} s: raise AGENTAPI_TURN_TIMEOUT, or give slow tools "
            "their own timeout"
        )
