"""Turns that summarise a conversation. They run beside it, in their own conversation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from agentapi import Settings
from agentapi.admission import ProviderGate
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.names import unknown_agent
from agentapi.conversation.compaction import (
    COMPACT,
    LONGEST_PART,
    MOST_AT_ONCE,
    Compaction,
    CompactionTask,
    Summary,
    conversation_beside,
    is_crowded,
    not_summarised,
    transcript,
    whole_turns,
)
from agentapi.conversation.messages import Message, Usage, UserMessage
from agentapi.conversation.window import Window
from agentapi.engine.fitting import window_of
from agentapi.engine.model_call import call_model
from agentapi.engine.model_chain import chain_of
from agentapi.engine.patience import RetryPolicy
from agentapi.engine.progress import TurnProgress
from agentapi.engine.turn_log import NoLog
from agentapi.errors import ContextTooLong, InvalidMessage, StoreUnavailable
from agentapi.ids import create_turn_id
from agentapi.logs import line
from agentapi.providers.base import ModelRequest, ModelResponse, Provider
from agentapi.stores import Accepted, Claim, Ending, TurnStore
from agentapi.stores.enqueueing import enqueue_traced
from agentapi.turns import NewTurn, TurnKind, TurnResult, TurnStatus
from workers.dispatch import Dispatcher
from workers.turns.work import Attempt, retry_policy

log = logging.getLogger("agentapi.compaction")

_NOTHING = Window(messages=0)

_SHORTEST_PART: Final = 100
"""Minimum characters of a message that is worth a summary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compactor:
    """Starts turns that summarise."""

    settings: Settings
    store: TurnStore
    dispatcher: Dispatcher

    def after(self, agent: AgentDefinition, claim: Claim, ending: Ending) -> None:
        """After a turn: start a summary of the conversation, if one is due.

        If the worker dies before that, the conversation's next turn starts it.
        """
        if agent.compact is None or ending.status is not TurnStatus.COMPLETED:
            return
        summary = claim.summary
        keep = self._keep(agent, agent.compact, claim, ending)
        if keep is None:
            return
        conversation_id = claim.lease.conversation_id
        task = CompactionTask(
            conversation_id=conversation_id,
            agent=agent.name,
            # Deleting a conversation changes its generation: a summary of the old one is refused.
            generation=claim.lease.generation,
            keep=keep,
        )
        try:
            turn = self._turn(task, claim, summary)
            [answer] = enqueue_traced(self.store, [turn], cause=claim.turn)
        except StoreUnavailable as error:
            log.warning(line("compaction.later", conversation_id=conversation_id, error=error))
            return
        if isinstance(answer, Accepted):
            self.dispatcher.send(answer.wakeup)

    def _keep(
        self, agent: AgentDefinition, compact: Compaction, claim: Claim, ending: Ending
    ) -> int | None:
        """How many messages a summary that is due leaves out; None if no summary is due."""
        learned = claim.contexts if ending.contexts is None else ending.contexts
        window = window_of(agent, self.settings.models, learned)
        rest = [*not_summarised(claim.history, claim.summary), *ending.messages]
        keep = compact.newest(window, rest, claim.calibration)
        if compact.due(claim.summary.total + len(ending.messages), claim.summary.covered):
            return keep
        crowded = is_crowded(window, rest, claim.calibration)
        # Only if a whole turn can be summarised: the newest one stays in the window.
        return keep if crowded and whole_turns(rest, len(rest) - keep) else None

    def _turn(self, task: CompactionTask, claim: Claim, summary: Summary) -> NewTurn:
        # In a separate conversation, so that the next message does not wait for a summary.
        own = conversation_beside(task.conversation_id)
        # The id derives from what is summarised, so that several requests create one turn.
        turn_id = create_turn_id(own, f"{task.generation}:{summary.covered}")
        return NewTurn(
            turn_id=turn_id,
            conversation_id=own,
            agent=COMPACT,
            kind=TurnKind.COMPACTION,
            input=task.to_message(),
            user_id=claim.turn.user_id,
            tenant_id=claim.turn.tenant_id,
            idle_time=self.settings.turn_retention,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactionWork:
    """Summarises. A summary is stored only if no other turn stored one first."""

    settings: Settings
    agents: Mapping[str, AgentDefinition]
    store: TurnStore
    gate: ProviderGate

    def window(self, agent: str) -> Window:
        """See `Work.window`. What is summarised is read piece by piece."""
        return _NOTHING

    def lacks_agent(self, claim: Claim, progress: TurnProgress) -> bool:
        """See `Work.lacks_agent`. No worker can run a turn whose message is not valid."""
        try:
            return _task(claim).agent not in self.agents
        except InvalidMessage:
            return False

    def agent(self, claim: Claim) -> AgentDefinition:
        """See `Work.agent`."""
        name = _task(claim).agent
        agent = self.agents.get(name)
        if agent is None:
            raise unknown_agent(name, self.agents)
        return agent

    async def run(self, attempt: Attempt) -> TurnResult:
        """See `Work.run`. Each piece's summary is stored before the next piece begins."""
        agent, claim, running = attempt.agent, attempt.claim, attempt.running
        provider = chain_of(agent, gate=self.gate, call=attempt.log.call)
        task = _task(claim)
        usage, steps = Usage(), 0
        retry = retry_policy(self.settings, claim, agent.patience)
        size = _Size()
        while (piece := await running.call(partial(self._piece, agent, task, size))) is not None:
            try:
                answer = await self._ask(agent, provider, piece, retry)
            except ContextTooLong:
                smaller = size.smaller(piece)
                if smaller is None:
                    raise
                size = smaller
                continue
            # The failures of an earlier attempt belonged to the call that has just succeeded.
            retry = replace(retry, failures=0, failing_for=0.0)
            usage, steps = usage + answer.usage, steps + 1
            kept = partial(self._keep, task, piece, answer.message.content)
            # Another turn stored its summary first, or the conversation is gone: what was read is
            # outdated.
            if not await running.call(kept):
                break
        return TurnResult(text="", messages=(), usage=usage, steps=steps, agent=agent.name)

    def _piece(self, agent: AgentDefinition, task: CompactionTask, size: _Size) -> _Piece | None:
        """The next messages to summarise, if any."""
        compaction = agent.compact or Compaction()
        keep = compaction.keep if task.keep is None else task.keep
        summary = self.store.summary(task.conversation_id)
        spare = min(summary.total - summary.covered - keep, MOST_AT_ONCE)
        if spare <= 0:
            return None
        start = summary.covered
        messages = self.store.slice(task.conversation_id, start, start + spare)
        # Whole turns only: the rest must be a valid history, each call with its result (promise 9).
        count = whole_turns(messages, spare)
        if count == 0:
            return None
        # The first whole turn at least, if the model cannot read more at once.
        count = whole_turns(messages[: count + 1], size.messages) or _first_turn(messages, count)
        text = transcript(summary.text, messages[:count], size.part)
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
        self, agent: AgentDefinition, provider: Provider, piece: _Piece, retry: RetryPolicy
    ) -> ModelResponse:
        async def request() -> ModelRequest:
            return ModelRequest(
                model=agent.model or provider.default_model,
                system_prompt=piece.prompt,
                messages=[UserMessage(content=piece.text)],
            )

        # No journal: each part's summary is stored, so a repeat continues after the last one.
        return await call_model(provider, request, NoLog(), stream=False, retry=retry)

    def after(self, claim: Claim, ending: Ending) -> None:
        """See `Work.after`. Only an agent's turn starts a summary."""


def _task(claim: Claim) -> CompactionTask:
    return CompactionTask.of_turn(claim.lease.conversation_id, claim.turn.input)


def _first_turn(messages: Sequence[Message], most: int) -> int:
    """How many messages the first whole turn has."""
    return next(n for n in range(1, most + 1) if whole_turns(messages[: n + 1], n) == n)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """How much the model reads at once: messages, and characters of each."""

    messages: int = MOST_AT_ONCE
    part: int = LONGEST_PART

    def smaller(self, piece: _Piece) -> _Size | None:
        """Half the size of the part that was too long; None if that is too little to summarise."""
        count = piece.stop - piece.start
        if count > 1 and self.messages > 1:
            return replace(self, messages=min(count, self.messages) // 2)
        return replace(self, part=self.part // 2) if self.part > _SHORTEST_PART else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """A part of a conversation, in the form that the model gets."""

    prompt: str
    text: str
    start: int
    stop: int
