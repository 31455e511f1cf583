"""The middle of an attempt: the event loop runs the turn until it ends or must wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agentapi import Agent, Settings
from agentapi.admission import ProviderGate
from agentapi.agents.registry import unknown_agent
from agentapi.conversation.compaction import COMPACT
from agentapi.conversation.messages import Message
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.model_call import RetryPolicy
from agentapi.engine.model_chain import chain_of
from agentapi.engine.rules import turn_rules
from agentapi.engine.tool_calls import Suspension
from agentapi.errors import AgentAPIError, DeadlineExceeded, PoisonTurn, StoreUnavailable
from agentapi.signals import RuntimeSignal
from agentapi.stores import Claim, Suspended, TurnStore
from agentapi.stores.refusals import missed_deadline
from agentapi.tools import ToolContext
from agentapi.turns import CallBook, HeldCalls, Turn, TurnResult, TurnStatus
from workers.compaction import Compactor
from workers.outage import Outage
from workers.turns.claimed import ClaimedTurn, claim_line
from workers.turns.decision import Commit, Suspend, TurnDecision, decide
from workers.turns.endings import broken, check_deadline, completed, stopped
from workers.turns.events import EventLog
from workers.turns.log import WorkerLog
from workers.turns.writing import TurnWriter

log = logging.getLogger("agentapi.turn")


@dataclass(frozen=True, kw_only=True)
class TurnExecutor:
    """Runs claimed turns, and decides what becomes of each."""

    settings: Settings
    agents: Mapping[str, Agent]
    store: TurnStore
    compactor: Compactor
    events: EventLog
    writer: TurnWriter
    gate: ProviderGate
    outage: Outage

    async def run(self, turn: ClaimedTurn) -> TurnDecision:
        """On the event loop: run the turn until it ends or must wait. Raises nothing."""
        try:
            return await self._run_or_decide(turn)
        except GeneratorExit:
            raise
        except BaseException as fault:
            # The turn itself is not at fault, but the code that describes its end.
            self._note_crash(turn, fault)
            return Commit(ending=broken(fault, turn.progress))

    async def _run_or_decide(self, turn: ClaimedTurn) -> TurnDecision:
        try:
            return await self._run(turn)
        except GeneratorExit:
            # The event loop is closing: nothing may be awaited or decided any more.
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
        """Run the turn; again when what it would wait for is there already."""
        progress = turn.progress
        if turn.claim.turn.cancel_requested:
            return Commit(ending=stopped(TurnStatus.CANCELLED, progress))
        agent = self._agent_of(turn)
        book = turn.claim.calls
        while True:
            outcome = await turn.running.run(partial(self._loop, turn, agent, book))
            if isinstance(outcome, TurnResult):
                return Commit(ending=completed(outcome, agent, progress))
            match await self._suspend(turn, outcome.held):
                case Suspended.PARKED:
                    return Suspend(held=outcome.held)
                case Suspended.CANCELLED:
                    return Commit(ending=stopped(TurnStatus.CANCELLED, progress))
                case CallBook() as answers:
                    book = answers

    def _agent_of(self, turn: ClaimedTurn) -> Agent:
        """The agent that runs the turn.

        Raises:
            DeadlineExceeded: It is too late to run it.
            PoisonTurn: It has killed too many processes.
            UnknownAgent: This worker does not know the agent.
        """
        claim = turn.claim
        check_deadline(claim)
        if claim.turn.deaths >= self.settings.max_attempts:
            raise PoisonTurn(
                f"turn ran alone in a process of its own {claim.turn.deaths} times, and the "
                "process died each time: see the workers' logs for what killed it (memory, a "
                "tool that crashes the process), mend that, then retry the turn"
            )
        if turn.agent is None:
            raise unknown_agent(claim.answering or claim.turn.agent, self.agents)
        return turn.agent

    async def _suspend(self, turn: ClaimedTurn, held: HeldCalls) -> Suspended | CallBook:
        """Store what the turn waits for, and release its lease, unless it need not wait."""
        running = turn.running

        def suspend() -> Suspended | CallBook:
            return self.store.calls.suspend(turn.claim.lease, held)

        return await running.call(lambda: self.writer.write(running, suspend))

    async def _loop(
        self, turn: ClaimedTurn, agent: Agent, book: CallBook
    ) -> TurnResult | Suspension:
        """Run the agent loop, within the turn's time."""
        claim, stored = turn.claim, turn.claim.turn
        turn_log = self._log_of(turn)
        if stored.stream and stored.attempt > 1:
            await turn_log.reset()
        try:
            async with asyncio.timeout(self._time_left(claim)) as deadline:
                if stored.agent == COMPACT:
                    connect = partial(chain_of, gate=self.gate, call=turn_log.call)
                    return await self.compactor.run(agent, connect(agent), claim, turn.running)
                run = self._turn_run(turn, agent, book, turn_log)
                return await run.run()
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._too_late(claim) from None

    def _log_of(self, turn: ClaimedTurn) -> WorkerLog:
        return WorkerLog(
            running=turn.running,
            store=self.store,
            events=self.events,
            journal=list(turn.progress.steps),
            attempt=turn.claim.turn.attempt,
            outage=self.outage,
        )

    def _turn_run(
        self, turn: ClaimedTurn, agent: Agent, book: CallBook, turn_log: WorkerLog
    ) -> TurnRun:
        claim, stored = turn.claim, turn.claim.turn
        return TurnRun(
            agent=agent,
            history=self._history(turn, agent),
            progress=turn.progress,
            context=_context(stored),
            log=turn_log,
            connect=partial(chain_of, gate=self.gate, call=turn_log.call),
            stream=stored.stream,
            retry=RetryPolicy(
                max_retries=self.settings.provider_max_retries,
                failures=stored.failures,
                park_after=None if self.settings.eager else self.settings.park_after,
            ),
            book=book,
            rules=turn_rules(self.settings, stored.depth, stored.budget, claim.spent),
            agents=self.agents,
        )

    def _history(self, turn: ClaimedTurn, agent: Agent) -> History:
        claim, running = turn.claim, turn.running

        async def fetch(names: Sequence[str]) -> Mapping[str, bytes]:
            return await running.call(lambda: self.store.blobs(claim.turn.conversation_id, names))

        return History(
            messages=_not_summarised(agent, claim),
            summary=claim.summary.text if agent.compact else "",
            calibration=claim.calibration,
            blobs=fetch,
        )

    def _time_left(self, claim: Claim) -> float:
        """Seconds that this attempt may run."""
        longest, deadline = self.settings.turn_timeout, claim.turn.deadline_at
        return longest if deadline is None else min(longest, deadline - claim.now)

    def _too_late(self, claim: Claim) -> DeadlineExceeded:
        """The error of a turn whose time is up: its own deadline's, or the setting's."""
        longest = self.settings.turn_timeout
        if claim.turn.deadline_at is not None and self._time_left(claim) < longest:
            return missed_deadline()
        return DeadlineExceeded(
            f"turn ran longer than {longest:g} s: raise AGENTAPI_TURN_TIMEOUT, or give slow tools "
            "a timeout of their own"
        )


def _not_summarised(agent: Agent, claim: Claim) -> Sequence[Message]:
    """The loaded history without the messages that the summary covers."""
    if agent.compact is None:
        return claim.history
    first = claim.summary.total - len(claim.history)
    return claim.history[max(0, claim.summary.covered - first) :]


def _context(turn: Turn) -> ToolContext:
    return ToolContext(
        conversation_id=turn.conversation_id,
        turn_id=turn.turn_id,
        user_id=turn.user_id,
        tenant_id=turn.tenant_id,
        attempt=turn.attempt,
    )
