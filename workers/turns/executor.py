"""One turn in one worker: claim, run, record each step, commit, hand on."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from agentapi import Settings
from agentapi.admission import ProviderGate
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.registry import unknown_agent, widest_window
from agentapi.conversation.compaction import COMPACT, summariser
from agentapi.conversation.messages import Message, UserMessage
from agentapi.conversation.window import Window
from agentapi.engine.in_process import turn_rules
from agentapi.engine.loop import run_loop
from agentapi.engine.model_call import RetryPolicy
from agentapi.engine.model_chain import chain_of
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import TurnSuspended
from agentapi.errors import (
    AgentAPIError,
    DeadlineExceeded,
    LeaseLost,
    PoisonTurn,
    StoreUnavailable,
    TurnParked,
)
from agentapi.stores import (
    Claim,
    Ending,
    Refusal,
    RefusalReason,
    Suspended,
    TurnStore,
    Unreadable,
    Wakeup,
)
from agentapi.stores.refusals import missed_deadline
from agentapi.tools import ToolContext
from agentapi.turns import CallBook, Turn, TurnError, TurnResult, TurnStatus
from workers.compaction import Compactor
from workers.dispatch import Dispatcher
from workers.isolation.messages import SuspectTurn
from workers.logs import line
from workers.outage import Outage, ride_out
from workers.turns.claimed import ClaimedTurn, Outcome, claim_line
from workers.turns.closing import TurnCloser
from workers.turns.endings import (
    broken,
    check_deadline,
    completed,
    failed,
    stopped,
)
from workers.turns.events import EventLog
from workers.turns.log import WorkerLog
from workers.turns.running import RunningTurn, RunningTurns, StopReason
from workers.turns.unknown_agents import UnknownAgents
from workers.turns.unreadable import UnreadableTurns

T = TypeVar("T")

log = logging.getLogger("agentapi.turn")

PASS_ON_DELAY: Final = 0.1
"""Seconds before a worker that is ending passes a wake-up on."""

_NOTHING = Window(messages=0)


@dataclass(frozen=True, kw_only=True)
class TurnExecutor:
    """Carries turns out: `begin` in a thread, `carry_out` on the event loop, `end` in a thread."""

    settings: Settings
    agents: Mapping[str, AgentDefinition]
    store: TurnStore
    dispatcher: Dispatcher
    compactor: Compactor
    closer: TurnCloser
    unreadable: UnreadableTurns
    unknown: UnknownAgents
    events: EventLog
    gate: ProviderGate
    running: RunningTurns
    loop: asyncio.AbstractEventLoop
    threads: Executor
    process: str
    outage: Outage
    stopping: Callable[[], bool]
    isolates: Callable[[], bool]

    def begin(
        self, conversation_id: str, turn_id: str, agent_name: str, *, owner: str, job: int = 0
    ) -> ClaimedTurn | SuspectTurn | dict[str, Any]:
        """Answer a wake-up: claim the turn.

        Args:
            conversation_id: Of the wake-up, as the next two.
            turn_id: The turn.
            agent_name: Whom it was given to.
            owner: The worker's name.
            job: The pool's number for it, by which it can be stopped.

        Returns:
            What is to be carried out, here or in a process of its own; or, when there is nothing
            to do, how the turn stands, without content: what Flower shows as the task's result.
            If Redis is away for too long, ``store_unavailable``: the sweep wakes the turn again.
        """
        if self.stopping():
            # Taken from the broker while the worker was told to end: for another one. It may
            # come back until Celery has stopped taking tasks, so not too fast.
            time.sleep(PASS_ON_DELAY)
            self.dispatcher.send(
                Wakeup(conversation_id=conversation_id, turn_id=turn_id, agent=agent_name)
            )
            return {"status": "passed_on"}
        token = f"{self.process}:{uuid.uuid4().hex}"
        try:
            claim = ride_out(
                lambda: self.store.claim(
                    conversation_id,
                    turn_id,
                    owner=owner,
                    token=token,
                    window=self._window(agent_name),
                    isolated=not self.isolates(),
                ),
                outage=self.outage,
            )
        except StoreUnavailable as error:
            return self.closer.unavailable(error)
        if isinstance(claim, Refusal):
            log.debug(line("turn.refused", turn_id=turn_id, reason=claim.reason))
            if claim.reason is RefusalReason.SUSPECT:
                return SuspectTurn(
                    job=job,
                    conversation_id=conversation_id,
                    turn_id=turn_id,
                    agent=agent_name,
                    process=uuid.uuid4().hex,
                    owner=owner,
                )
            return _summary(claim.turn) if claim.turn else {"status": "missing"}
        if isinstance(claim, Unreadable):
            return self.unreadable.settle(claim)
        return self._claimed(claim, agent_name, job)

    def _window(self, agent_name: str) -> Window:
        """How much of the history is loaded."""
        agent = self.agents.get(agent_name)
        if agent is not None:
            return widest_window(agent, self.agents)
        # Not known here, but the conversation may have gone on to an agent that is.
        return _NOTHING if agent_name == COMPACT else Window()

    def _claimed(self, claim: Claim, agent_name: str, job: int) -> ClaimedTurn | dict[str, Any]:
        name = claim.answering or agent_name
        if name == COMPACT:
            name = summariser(claim.lease.conversation_id, claim.turn.input)
        turn = claim.turn
        progress = TurnProgress(
            user=UserMessage(
                content=turn.input, attachments=tuple(turn.attachments), turn_id=turn.turn_id
            ),
            steps=list(claim.steps),
        )
        left = self.unknown.leave(claim, name, progress)
        if left is not None:
            return left
        running = RunningTurn(lease=claim.lease, loop=self.loop, threads=self.threads, job=job)
        self.running.add(running)
        return ClaimedTurn(
            agent=self.agents.get(name), claim=claim, running=running, progress=progress
        )

    async def carry_out(self, turn: ClaimedTurn) -> Outcome:
        """On the event loop: run the turn until it ends or must wait. Raises nothing."""
        try:
            return await self._outcome(turn.agent, turn.claim, turn.running, turn.progress)
        except (LeaseLost, StoreUnavailable) as error:
            return error
        except GeneratorExit:
            raise
        except BaseException as fault:
            # Not the turn's fault but one of the lines that say how it ended.
            log.error(claim_line("turn.crashed", turn.claim, error=type(fault).__name__))
            return broken(fault, turn.progress)

    def end(self, turn: ClaimedTurn, outcome: Outcome) -> dict[str, Any]:
        """See `TurnCloser.close`."""
        return self.closer.close(turn, outcome)

    async def _outcome(
        self,
        agent: AgentDefinition | None,
        claim: Claim,
        running: RunningTurn,
        progress: TurnProgress,
    ) -> Ending | TurnParked | TurnSuspended | None:
        if claim.turn.cancel_requested:
            return stopped(TurnStatus.CANCELLED, progress)
        try:
            check_deadline(claim)
            if claim.turn.deaths >= self.settings.max_attempts:
                raise PoisonTurn(
                    f"turn ran alone in a process of its own {claim.turn.deaths} times, and the "
                    "process died each time: see the workers' logs for what killed it (memory, a "
                    "tool that crashes the process), mend that, then retry the turn"
                )
            if agent is None:
                raise unknown_agent(claim.answering or claim.turn.agent, self.agents)
            return await self._carry_on(agent, claim, running, progress)
        except asyncio.CancelledError:
            match running.reason:
                case StopReason.SHUTDOWN:
                    return None
                case StopReason.LEASE_LOST:
                    raise LeaseLost(f"lease of turn {claim.turn.turn_id} is lost") from None
                case StopReason.CANCELLED:
                    return stopped(TurnStatus.CANCELLED, progress)
                case None:
                    message = "the agent loop was cancelled from within: see the worker's log"
                    error = TurnError(code="internal", message=message)
                    return stopped(TurnStatus.FAILED, progress, error)
        except TurnParked as pause:
            return pause
        except StoreUnavailable:
            if running.reason is StopReason.SHUTDOWN:
                return None
            raise
        except LeaseLost:
            raise
        except AgentAPIError as refusal:
            return failed(refusal, progress)
        except GeneratorExit:
            raise
        except BaseException as fault:
            # A fault of a provider of the user's own, or of ours: the turn must end all the same.
            # Also SystemExit, and the panics of extensions, which are no Exception.
            log.error(claim_line("turn.crashed", claim, error=type(fault).__name__))
            return failed(fault, progress)

    async def _carry_on(
        self, agent: AgentDefinition, claim: Claim, running: RunningTurn, progress: TurnProgress
    ) -> Ending | TurnSuspended:
        """Run the loop; again when what it would wait for is there already."""
        book = claim.calls
        while True:
            outcome = await self._attempt(agent, claim, running, progress, book)
            if isinstance(outcome, Ending):
                return outcome
            match await self._suspend(claim, running, outcome):
                case Suspended.PARKED:
                    return outcome
                case Suspended.CANCELLED:
                    return stopped(TurnStatus.CANCELLED, progress)
                case CallBook() as answers:
                    book = answers

    async def _attempt(
        self,
        agent: AgentDefinition,
        claim: Claim,
        running: RunningTurn,
        progress: TurnProgress,
        book: CallBook,
    ) -> Ending | TurnSuspended:
        try:
            result = await running.run(lambda: self._loop(agent, claim, running, progress, book))
        except TurnSuspended as wish:
            return wish
        return completed(result, agent, progress)

    async def _suspend(
        self, claim: Claim, running: RunningTurn, wish: TurnSuspended
    ) -> Suspended | CallBook:
        def suspend() -> Suspended | CallBook:
            return self.store.calls.suspend(claim.lease, wish.held)

        return await running.call(lambda: self.closer.write(running, suspend))

    async def _loop(
        self,
        agent: AgentDefinition,
        claim: Claim,
        running: RunningTurn,
        progress: TurnProgress,
        book: CallBook,
    ) -> TurnResult:
        turn = claim.turn
        turn_log = WorkerLog(
            running=running,
            store=self.store,
            events=self.events,
            journal=list(progress.steps),
            attempt=turn.attempt,
            outage=self.outage,
        )
        connect = partial(chain_of, gate=self.gate, call=turn_log.call)
        if turn.stream and turn.attempt > 1:
            await turn_log.reset()
        try:
            async with asyncio.timeout(self._time_left(claim)) as deadline:
                if turn.agent == COMPACT:
                    return await self.compactor.run(agent, connect(agent), claim, running)
                return await run_loop(
                    agent,
                    connect(agent),
                    history=_not_summarised(agent, claim),
                    progress=progress,
                    context=_context(turn),
                    log=turn_log,
                    stream=turn.stream,
                    retry=RetryPolicy(
                        max_retries=self.settings.provider_max_retries,
                        failures=turn.failures,
                        park_after=None if self.settings.eager else self.settings.park_after,
                    ),
                    book=book,
                    rules=turn_rules(self.settings, turn.depth, turn.budget, claim.spent),
                    agents=self.agents,
                    summary=claim.summary.text if agent.compact else "",
                    calibration=claim.calibration,
                    blobs=lambda names: running.call(
                        lambda: self.store.blobs(turn.conversation_id, names)
                    ),
                    connect=connect,
                )
        except TimeoutError:
            if not deadline.expired():
                raise
            if turn.deadline_at is not None and self._time_left(claim) < self.settings.turn_timeout:
                raise missed_deadline() from None
            raise DeadlineExceeded(
                f"turn ran longer than {self.settings.turn_timeout:g} s: raise "
                "AGENTAPI_TURN_TIMEOUT, or give slow tools a timeout of their own"
            ) from None

    def _time_left(self, claim: Claim) -> float:
        """Seconds that this attempt may run."""
        longest, deadline = self.settings.turn_timeout, claim.turn.deadline_at
        return longest if deadline is None else min(longest, deadline - claim.now)


def _not_summarised(agent: AgentDefinition, claim: Claim) -> Sequence[Message]:
    """The history that was loaded, without what the summary says already."""
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


def _summary(turn: Turn) -> dict[str, Any]:
    return {
        "status": turn.status.value,
        "attempt": turn.attempt,
        "steps": turn.steps,
        "tokens": turn.usage.total_tokens,
    }
