"""Turns that summarise: beside a conversation, in a conversation of their own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.compaction import (
    COMPACT,
    MOST_AT_ONCE,
    Compaction,
    CompactionTask,
    Summary,
    conversation_beside,
    transcript,
    whole_turns,
)
from agentapi.conversation.messages import Usage, UserMessage
from agentapi.engine.loop import NoLog
from agentapi.engine.model_call import RetryPolicy, call_model
from agentapi.errors import StoreUnavailable
from agentapi.ids import create_turn_id
from agentapi.providers.base import ModelRequest, ModelResponse, Provider
from agentapi.stores import Accepted, Claim, Ending, TurnStore
from agentapi.turns import NewTurn, TurnResult, TurnStatus
from workers.dispatch import Dispatcher
from workers.logs import line
from workers.turns.running import RunningTurn

log = logging.getLogger("agentapi.compaction")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compactor:
    """Starts such turns and carries them out. A summary is kept only if nobody was faster."""

    settings: Settings
    store: TurnStore
    dispatcher: Dispatcher

    def after(self, agent: AgentDefinition, claim: Claim, ending: Ending) -> None:
        """A turn has ended: start another that summarises, if it is time.

        One that was not started, since the worker died here, is started after the next turn.
        """
        if agent.compact is None or ending.status is not TurnStatus.COMPLETED:
            return
        summary = claim.summary
        if not agent.compact.due(summary.total + len(ending.messages), summary.covered):
            return
        conversation_id = claim.lease.conversation_id
        task = CompactionTask(
            conversation_id=conversation_id,
            agent=agent.name,
            generation=claim.lease.generation,
        )
        try:
            [answer] = self.store.enqueue([self._turn(task, claim, summary)])
        except StoreUnavailable as error:
            log.warning(line("compaction.later", conversation_id=conversation_id, error=error))
            return
        if isinstance(answer, Accepted):
            self.dispatcher.send(answer.wakeup)

    def _turn(self, task: CompactionTask, claim: Claim, summary: Summary) -> NewTurn:
        own = conversation_beside(task.conversation_id)
        # The same beginning is summarised once, however many turns ask for it.
        turn_id = create_turn_id(own, f"{task.generation}:{summary.covered}")
        return NewTurn(
            turn_id=turn_id,
            conversation_id=own,
            agent=COMPACT,
            input=task.to_message(),
            user_id=claim.turn.user_id,
            tenant_id=claim.turn.tenant_id,
            idle_time=self.settings.turn_retention,
        )

    async def run(
        self, agent: AgentDefinition, provider: Provider, claim: Claim, running: RunningTurn
    ) -> TurnResult:
        """Summarise, piece by piece; each is kept before the next begins."""
        task = CompactionTask.of_turn(claim.lease.conversation_id, claim.turn.input)
        usage, steps = Usage(), 0
        while (piece := await running.call(lambda: self._piece(agent, task))) is not None:
            answer = await self._ask(agent, provider, piece, claim)
            usage, steps = usage + answer.usage, steps + 1
            kept = partial(self._keep, task, piece, answer.message.content)
            if not await running.call(kept):
                break
        return TurnResult(text="", messages=(), usage=usage, steps=steps, agent=agent.name)

    def _piece(self, agent: AgentDefinition, task: CompactionTask) -> _Piece | None:
        """What is to be summarised next, if anything."""
        compaction = agent.compact or Compaction()
        summary = self.store.summary(task.conversation_id)
        spare = min(summary.total - summary.covered - compaction.keep, MOST_AT_ONCE)
        if spare <= 0:
            return None
        start = summary.covered
        messages = self.store.slice(task.conversation_id, start, start + spare)
        count = whole_turns(messages, spare)
        if count == 0:
            return None
        text = transcript(summary.text, messages[:count])
        return _Piece(prompt=compaction.prompt, text=text, start=start, stop=start + count)

    def _keep(self, task: CompactionTask, piece: _Piece, text: str) -> bool:
        return self.store.summarise(
            task.conversation_id,
            text,
            generation=task.generation,
            start=piece.start,
            stop=piece.stop,
        )

    async def _ask(
        self, agent: AgentDefinition, provider: Provider, piece: _Piece, claim: Claim
    ) -> ModelResponse:
        async def request() -> ModelRequest:
            return ModelRequest(
                model=agent.model or provider.default_model,
                system_prompt=piece.prompt,
                messages=[UserMessage(content=piece.text)],
            )

        retry = RetryPolicy(
            max_retries=self.settings.provider_max_retries,
            failures=claim.turn.failures,
            park_after=None if self.settings.eager else self.settings.park_after,
        )
        return await call_model(provider, request, NoLog(), stream=False, retry=retry)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """A part of a conversation, as the model gets it."""

    prompt: str
    text: str
    start: int
    stop: int
