"""A turn in the caller's own process, run by `Agent.run` without a worker or a journal."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from agentapi.admission import local_gate
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.messages import Message, UserMessage
from agentapi.conversation.user_input import Content
from agentapi.engine.fitting import Contexts
from agentapi.engine.loop import History, TurnRun
from agentapi.engine.model_chain import chain_of
from agentapi.engine.patience import RetryPolicy
from agentapi.engine.progress import TurnProgress
from agentapi.engine.rules import turn_rules
from agentapi.engine.tool_calls import Suspension
from agentapi.engine.tracing import agent_span
from agentapi.engine.turn_log import NoLog, TurnLog
from agentapi.errors import AgentAPIError, ApprovalRequired, DeadlineExceeded, UnknownAgent
from agentapi.settings import Settings
from agentapi.tools import ToolContext
from agentapi.turns import (
    CallBook,
    ChildReply,
    ChildTurn,
    ToolStep,
    TurnError,
    TurnResult,
    TurnStatus,
)
from agentapi.turns.budget import Limits, Spent

T = TypeVar("T")

_NOTHING = Spent()

Remembered: TypeAlias = dict[str, list[Message]]
"""Messages of conversations with agents that have a memory, by conversation id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A turn's result, the agent that gave it, and what it spent."""

    result: TurnResult
    agent: AgentDefinition
    spent: Spent


@dataclass(frozen=True, kw_only=True, slots=True)
class InProcessTurn:
    """A turn of `Agent.run`, with the turns that it delegates to others.

    Attributes:
        agent: The agent that is asked.
        content: The user's message.
        history: The conversation before it.
        context: For prompts, tools and hooks, with the context as it is stored.
        settings: Limits and retries.
        remembered: Conversations with agents that have a memory; entries are added to it.
        log: Receives each step.
        stream: Whether the log receives pieces of the text.
        budget: What the turn may spend, in addition to its agent's own limits.
        spent_before: What its conversation had spent before.
        depth: Number of turns above it.
        contexts: What the conversation has learned of its models' contexts.
    """

    agent: AgentDefinition
    content: Content
    history: History
    context: ToolContext
    settings: Settings
    remembered: Remembered
    log: TurnLog = field(default_factory=NoLog)
    stream: bool = False
    budget: Limits | None = None
    spent_before: Spent = _NOTHING
    depth: int = 0
    contexts: Contexts = field(default_factory=Contexts)

    async def run(self) -> Answer:
        """Run the turn until it ends. The turns that it delegates run in parallel.

        Raises:
            ApprovalRequired: A call needs a person's approval, which cannot be requested here.
            AgentAPIError: As `TurnRun.run`.
        """
        progress = TurnProgress(
            user=UserMessage(
                content=self.content.text,
                attachments=self.content.attachments,
                turn_id=self.context.turn_id,
            )
        )
        with agent_span(self.agent.name, self.context):
            return await self._until_reply(progress, _handed_to(self.agent))

    async def _until_reply(
        self, progress: TurnProgress, agents: dict[str, AgentDefinition]
    ) -> Answer:
        book = CallBook()
        while True:
            outcome = await self._run(progress, book, agents)
            if not isinstance(outcome, Suspension):
                answering = _last(self.agent, progress, agents)
                return Answer(result=outcome, agent=answering, spent=progress.spent)
            book = await self._ask(outcome)

    async def _run(
        self, progress: TurnProgress, book: CallBook, agents: dict[str, AgentDefinition]
    ) -> TurnResult | Suspension:
        settings = self.settings
        self.contexts.sizes = settings.models
        run = TurnRun(
            agent=self.agent,
            history=replace(self.history, blobs=self._fetch),
            progress=progress,
            context=self.context,
            log=self.log,
            connect=partial(
                chain_of, gate=local_gate(settings.provider_limits), contexts=self.contexts
            ),
            stream=self.stream,
            retry=RetryPolicy(max_retries=settings.provider_max_retries),
            book=book,
            rules=turn_rules(settings, self.depth, self.budget, self.spent_before),
            agents=agents,
            adopt=agents.update,
        )
        return await run.run()

    async def _fetch(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of attachments, including those of this message."""
        own = self.content.blobs
        older = [name for name in names if name not in own]
        return {**own, **(await self.history.blobs(older) if older else {})}

    async def _ask(self, suspension: Suspension) -> CallBook:
        """Run the child turns in parallel, but turns of one conversation in order."""
        held = suspension.held
        # Without a store, a decision could not be recorded later, so the turn cannot wait.
        if held.questions:
            tools = ", ".join(sorted({question.tool for question in held.questions}))
            raise ApprovalRequired(
                f"tool {tools} requires approval, which Agent.run() cannot request: run the turn "
                "through an Orchestrator (in eager mode too) and decide with TurnHandle.approve()"
            )
        # Turns of one conversation never run in parallel, as in workers (promise 1).
        by_conversation: dict[str, list[ChildTurn]] = {}
        by_call: dict[str, list[ChildTurn]] = {}
        for child in held.children:
            by_conversation.setdefault(child.conversation_id, []).append(child)
            by_call.setdefault(child.call_id, []).append(child)

        async def run_all(children: Sequence[ChildTurn]) -> list[ChildReply]:
            return [await self._run_child(child, suspension.agents) for child in children]

        groups = await _all_or_none(map(run_all, by_conversation.values()))
        replies = {reply.turn_id: reply for group in groups for reply in group}
        return CallBook(children=by_call, replies=replies)

    async def _run_child(self, child: ChildTurn, agents: Mapping[str, object]) -> ChildReply:
        agent = agents.get(child.agent)
        try:
            if not isinstance(agent, AgentDefinition):
                raise UnknownAgent(
                    f"agent {child.agent!r} is known only by name: without workers, delegate to "
                    "the Agent object"
                )
            async with asyncio.timeout(child.timeout):
                answer = await self._child(child, agent).run()
        except ApprovalRequired:
            # Not a failure of the child: the whole turn cannot continue here.
            raise
        except TimeoutError:
            return _failed(child, DeadlineExceeded.code, f"no reply in {child.timeout:g} s")
        except AgentAPIError as failure:
            return _failed(child, failure.code, str(failure))
        result = answer.result
        if child.lasting:
            # Only after it completes: a failed turn leaves nothing behind (promise 4).
            self.remembered.setdefault(child.conversation_id, []).extend(result.messages)
        return ChildReply(
            turn_id=child.turn_id,
            status=TurnStatus.COMPLETED,
            text=result.text,
            usage=result.usage,
            steps=answer.spent.steps,
            finish_reason=result.finish_reason,
        )

    def _child(self, child: ChildTurn, agent: AgentDefinition) -> InProcessTurn:
        return InProcessTurn(
            agent=agent,
            content=Content(text=child.input),
            history=History(messages=self.remembered.get(child.conversation_id, ())),
            context=replace(
                self.context,
                conversation_id=child.conversation_id,
                turn_id=child.turn_id,
                metadata={},
                context=child.context_of(self.context.context),
            ),
            settings=self.settings,
            remembered=self.remembered,
            budget=child.budget,
            depth=self.depth + 1,
        )


def _failed(child: ChildTurn, code: str, message: str) -> ChildReply:
    error = TurnError(code=code, message=message)
    return ChildReply(turn_id=child.turn_id, status=TurnStatus.FAILED, error=error)


def _handed_to(agent: AgentDefinition) -> dict[str, AgentDefinition]:
    """The agents that a turn can reach by any number of handoffs."""
    found = {agent.name: agent}
    waiting = [agent]
    while waiting:
        for name, target in waiting.pop().handoffs().items():
            if name not in found:
                found[name] = target
                waiting.append(target)
    return found


def _last(
    agent: AgentDefinition, progress: TurnProgress, agents: Mapping[str, AgentDefinition]
) -> AgentDefinition:
    """The agent that answered, after all handoffs."""
    seen = agent
    for step in progress.steps:
        if isinstance(step, ToolStep) and step.handoff is not None:
            seen = agents.get(step.handoff) or seen.handoff_to(step.handoff) or seen
    return seen


async def _all_or_none(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all in parallel. If one fails, cancel the others before its error is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
