"""One turn in one worker: claim, run, record each step, commit, hand on."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentapi import Agent, Settings
from agentapi.errors import (
    AgentAPIError,
    DeadlineExceeded,
    LeaseLost,
    PoisonTurn,
    StoreUnavailable,
)
from agentapi.loop import TurnProgress, run_loop
from agentapi.messages import UserMessage
from agentapi.providers import providers
from agentapi.registry import unknown_agent
from agentapi.stores import Claim, Ending, Lease, Refusal, TurnStore
from agentapi.stores.base import Wakeup
from agentapi.tools import ToolContext
from agentapi.turns import EventType, Step, Turn, TurnError, TurnResult, TurnStatus
from agentapi.window import Window
from workers.dispatch import Dispatcher
from workers.event_log import EventLog
from workers.logs import line
from workers.patience import ride_out
from workers.running import RunningTurn, RunningTurns, StopReason

log = logging.getLogger("agentapi.turn")

_NOTHING = Window(messages=0)


@dataclass(kw_only=True)
class WorkerLog:
    """The `TurnLog` of a worker: steps into the journal, text into the event stream."""

    running: RunningTurn
    store: TurnStore
    events: EventLog
    recorded: int

    async def record(self, step: Step) -> None:
        """See `TurnLog.record`. Runs in the turn's thread; also hears of a cancellation."""
        index = self.recorded
        self.recorded += 1
        if await self.running.call(lambda: self._record(index, step)):
            self.running.stop(StopReason.CANCELLED)

    def _record(self, index: int, step: Step) -> bool:
        def write() -> bool:
            self.events.flush()
            return self.store.record(self.running.lease, index, step)

        return ride_out(write, give_up=lambda: self.running.reason is not None)

    async def delta(self, text: str) -> None:
        """See `TurnLog.delta`."""
        self.events.add(self.running.lease, EventType.DELTA, {"text": text})

    async def reset(self) -> None:
        """See `TurnLog.reset`."""
        self.events.add(self.running.lease, EventType.RESET, {})


@dataclass(frozen=True, kw_only=True)
class TurnExecutor:
    """Carries turns out in the threads that call it."""

    settings: Settings
    agents: Mapping[str, Agent]
    store: TurnStore
    dispatcher: Dispatcher
    events: EventLog
    running: RunningTurns
    loop: asyncio.AbstractEventLoop

    def execute(
        self, conversation_id: str, turn_id: str, agent_name: str, owner: str
    ) -> dict[str, Any]:
        """Answer a wake-up.

        Returns:
            How the turn stands now, without content: what Flower shows as the task's result.
            A wake-up with nothing to do says how the turn stands, and changes nothing.

        Raises:
            StoreUnavailable: Redis was away for too long; the sweep wakes the turn again.
        """
        agent = self.agents.get(agent_name)
        token = uuid.uuid4().hex
        claim = ride_out(
            lambda: self.store.claim(
                conversation_id,
                turn_id,
                owner=owner,
                token=token,
                window=agent.window if agent else _NOTHING,
            )
        )
        if isinstance(claim, Refusal):
            log.debug(line("turn.refused", turn_id=turn_id, reason=claim.reason))
            return _summary(claim.turn) if claim.turn else {"status": "missing"}
        return self._run(agent, claim)

    def _run(self, agent: Agent | None, claim: Claim) -> dict[str, Any]:
        running = RunningTurn(lease=claim.lease, loop=self.loop)
        progress = TurnProgress(
            user=UserMessage(content=claim.turn.input, turn_id=claim.turn.turn_id),
            steps=list(claim.steps),
        )
        self.running.add(running)
        try:
            ending = self._ending(agent, claim, running, progress)
            if ending is None:
                return self._hand_back(claim)
            wakeup = self._commit(running, ending)
        except LeaseLost:
            log.warning(_line("turn.lost", claim))
            return {"status": "lost", "attempt": claim.turn.attempt}
        finally:
            self.running.remove(running)
            self.events.forget(claim.lease)
        self.dispatcher.send(wakeup)
        code = {"error": ending.error.code} if ending.error else {}
        log.info(_line(f"turn.{ending.status}", claim, steps=ending.steps, **code))
        return {
            "status": ending.status.value,
            "attempt": claim.turn.attempt,
            "steps": ending.steps,
            "tokens": ending.usage.total_tokens,
            **code,
        }

    def _ending(
        self, agent: Agent | None, claim: Claim, running: RunningTurn, progress: TurnProgress
    ) -> Ending | None:
        """Run the turn to its end; None when it is to be handed back."""
        try:
            if claim.turn.attempt - claim.turn.handbacks > self.settings.max_attempts:
                raise PoisonTurn(
                    f"turn was claimed {claim.turn.attempt} times and none of the workers lived to "
                    "end it: see their logs for what killed them (memory, a tool that crashes the "
                    "process), then enqueue it again"
                )
            if agent is None:
                raise unknown_agent(claim.turn.agent, self.agents)
            return _completed(running.run(lambda: self._loop(agent, claim, running, progress)))
        except asyncio.CancelledError:
            match running.reason:
                case StopReason.SHUTDOWN:
                    return None
                case StopReason.LEASE_LOST:
                    raise LeaseLost(f"lease of turn {claim.turn.turn_id} is lost") from None
                case StopReason.CANCELLED:
                    return _stopped(TurnStatus.CANCELLED, progress)
                case None:
                    message = "the agent loop was cancelled from within: see the worker's log"
                    error = TurnError(code="internal", message=message)
                    return _stopped(TurnStatus.FAILED, progress, error)
        except (LeaseLost, StoreUnavailable):
            raise
        except AgentAPIError as refusal:
            error = TurnError(code=refusal.code, message=str(refusal))
            return _stopped(TurnStatus.FAILED, progress, error)
        except Exception as fault:
            # A fault of a provider of the user's own, or of ours: the turn must end all the same.
            log.error(_line("turn.crashed", claim, error=type(fault).__name__))
            error = TurnError(code="internal", message=f"{type(fault).__name__}: {fault}")
            return _stopped(TurnStatus.FAILED, progress, error)

    async def _loop(
        self, agent: Agent, claim: Claim, running: RunningTurn, progress: TurnProgress
    ) -> TurnResult:
        turn = claim.turn
        turn_log = WorkerLog(
            running=running, store=self.store, events=self.events, recorded=len(progress.steps)
        )
        if turn.stream and turn.attempt > 1:
            await turn_log.reset()
        try:
            async with asyncio.timeout(self.settings.turn_timeout) as deadline:
                return await run_loop(
                    agent,
                    providers.get(agent.provider),
                    history=claim.history,
                    progress=progress,
                    context=_context(turn),
                    log=turn_log,
                    stream=turn.stream,
                    max_retries=self.settings.provider_max_retries,
                )
        except TimeoutError:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(
                f"turn ran longer than {self.settings.turn_timeout:g} s: raise "
                "AGENTAPI_TURN_TIMEOUT, or give slow tools a timeout of their own"
            ) from None

    def _commit(self, running: RunningTurn, ending: Ending) -> Wakeup | None:
        def write() -> Wakeup | None:
            self.events.flush()
            return self.store.commit(running.lease, ending)

        return ride_out(write, give_up=lambda: running.reason is StopReason.LEASE_LOST)

    def _hand_back(self, claim: Claim) -> dict[str, Any]:
        self.store.release(claim.lease)
        self.dispatcher.send(_wakeup(claim.lease, claim.turn))
        log.info(_line("turn.handed_back", claim))
        return {"status": "handed_back", "attempt": claim.turn.attempt}


def _context(turn: Turn) -> ToolContext:
    return ToolContext(
        conversation_id=turn.conversation_id,
        turn_id=turn.turn_id,
        user_id=turn.user_id,
        tenant_id=turn.tenant_id,
        attempt=turn.attempt,
    )


def _wakeup(lease: Lease, turn: Turn) -> Wakeup:
    return Wakeup(conversation_id=lease.conversation_id, turn_id=lease.turn_id, agent=turn.agent)


def _completed(result: TurnResult) -> Ending:
    return Ending(
        status=TurnStatus.COMPLETED,
        messages=result.messages,
        usage=result.usage,
        steps=result.steps,
    )


def _stopped(status: TurnStatus, progress: TurnProgress, error: TurnError | None = None) -> Ending:
    """A turn that gives no reply leaves nothing in the history, so that the next one is valid."""
    return Ending(status=status, usage=progress.usage, steps=len(progress.steps), error=error)


def _summary(turn: Turn) -> dict[str, Any]:
    return {
        "status": turn.status.value,
        "attempt": turn.attempt,
        "steps": turn.steps,
        "tokens": turn.usage.total_tokens,
    }


def _line(action: str, claim: Claim, **more: object) -> str:
    return line(
        action,
        conversation_id=claim.lease.conversation_id,
        turn_id=claim.lease.turn_id,
        attempt=claim.turn.attempt,
        **more,
    )
