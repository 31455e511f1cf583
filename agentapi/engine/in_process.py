"""A turn in the caller's own process: what `Agent.run` does, with no worker and no journal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from agentapi.admission import local_gate
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.attachments import Fetch, no_blobs
from agentapi.conversation.messages import Message, UserMessage
from agentapi.conversation.user_input import Content
from agentapi.engine.loop import NoLog, TurnLog, run_loop
from agentapi.engine.model_call import RetryPolicy
from agentapi.engine.model_chain import chain_of
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import TurnRules, TurnSuspended
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

_NOTHING = Spent()


Remembered: TypeAlias = dict[str, list[Message]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A turn's result, the agent that gave it, and what that took."""

    result: TurnResult
    agent: AgentDefinition
    spent: Spent


async def run_in_process(
    agent: AgentDefinition,
    content: Content,
    *,
    settings: Settings,
    history: Sequence[Message],
    context: ToolContext,
    log: TurnLog,
    stream: bool = False,
    depth: int = 0,
    remembered: Remembered,
    budget: Limits | None = None,
    spent_before: Spent = _NOTHING,
    blobs: Fetch = no_blobs,
) -> Answer:
    """Run a turn to its end, and those that it delegates beside each other.

    Args:
        agent: Who is asked.
        content: What is said.
        settings: The limits, also of the turns that it delegates.
        history: The conversation before it.
        context: For the tools.
        log: Told of each step.
        stream: Whether the log gets the text's pieces.
        depth: How many turns are above this one.
        remembered: Conversations with agents that remember; grows.
        budget: What the turn may spend besides its agent's own limits.
        spent_before: What its conversation had spent before.
        blobs: Fetches bytes of attachments of the history.

    Raises:
        ApprovalRequired: A call needs a person's approval, and nobody can be asked.
        AgentAPIError: As `run_loop`.
    """
    connect = partial(chain_of, gate=local_gate(settings.provider_limits))
    user = UserMessage(
        content=content.text, attachments=content.attachments, turn_id=context.turn_id
    )
    progress = TurnProgress(user=user)

    async def fetch(names: Sequence[str]) -> Mapping[str, bytes]:
        older = [name for name in names if name not in content.blobs]
        return {**content.blobs, **(await blobs(older) if older else {})}

    book = CallBook()
    while True:
        try:
            result = await run_loop(
                agent,
                connect(agent),
                history=history,
                progress=progress,
                context=context,
                log=log,
                connect=connect,
                stream=stream,
                retry=RetryPolicy(max_retries=settings.provider_max_retries),
                book=book,
                rules=turn_rules(settings, depth, budget, spent_before),
                blobs=fetch,
                agents=_handed_to(agent),
            )
        except TurnSuspended as suspended:
            book = await _ask(suspended, settings, context, depth, remembered)
        else:
            return Answer(result=result, agent=_last(agent, progress), spent=progress.spent)


def turn_rules(
    settings: Settings, depth: int, budget: Limits | None, spent_before: Spent
) -> TurnRules:
    """What a turn may do, by the settings and by who asked for it; see `TurnRules`."""
    return TurnRules(
        depth=depth,
        max_depth=settings.max_depth,
        max_children=settings.max_children,
        max_message_bytes=settings.max_message_bytes,
        max_tool_result_bytes=settings.max_tool_result_bytes,
        approval_timeout=settings.approval_timeout,
        prices=settings.prices,
        budget=budget,
        spent_before=spent_before,
    )


async def _ask(
    suspended: TurnSuspended,
    settings: Settings,
    context: ToolContext,
    depth: int,
    remembered: Remembered,
) -> CallBook:
    """Run the children, each conversation's one after the other."""
    held = suspended.held
    if held.questions:
        tools = ", ".join(sorted({question.tool for question in held.questions}))
        raise ApprovalRequired(
            f"tool {tools} requires approval, and Agent.run() has nobody to ask: run the turn "
            "through an Orchestrator (eager mode too), whose TurnHandle.approve() answers"
        )
    conversations: dict[str, list[ChildTurn]] = {}
    for child in held.children:
        conversations.setdefault(child.conversation_id, []).append(child)

    async def run_all(children: Sequence[ChildTurn]) -> list[ChildReply]:
        return [
            await _run_child(child, suspended.agents, settings, context, depth, remembered)
            for child in children
        ]

    groups = await asyncio.gather(*map(run_all, conversations.values()))
    by_call: dict[str, list[ChildTurn]] = {}
    for child in held.children:
        by_call.setdefault(child.call_id, []).append(child)
    replies = {reply.turn_id: reply for group in groups for reply in group}
    return CallBook(children=by_call, replies=replies)


async def _run_child(
    child: ChildTurn,
    agents: Mapping[str, object],
    settings: Settings,
    context: ToolContext,
    depth: int,
    remembered: Remembered,
) -> ChildReply:
    agent = agents.get(child.agent)
    try:
        if not isinstance(agent, AgentDefinition):
            raise UnknownAgent(
                f"agent {child.agent!r} is known by name only: without workers, delegate to the "
                "Agent itself"
            )
        async with asyncio.timeout(child.timeout):
            answer = await run_in_process(
                agent,
                Content(text=child.input),
                settings=settings,
                history=remembered.get(child.conversation_id, ()),
                context=replace(
                    context, conversation_id=child.conversation_id, turn_id=child.turn_id
                ),
                log=NoLog(),
                depth=depth + 1,
                remembered=remembered,
                budget=child.budget,
            )
    except ApprovalRequired:
        raise
    except TimeoutError:
        error = TurnError(code=DeadlineExceeded.code, message=f"no reply in {child.timeout:g} s")
        return ChildReply(turn_id=child.turn_id, status=TurnStatus.FAILED, error=error)
    except AgentAPIError as failure:
        error = TurnError(code=failure.code, message=str(failure))
        return ChildReply(turn_id=child.turn_id, status=TurnStatus.FAILED, error=error)
    result = answer.result
    if child.lasting:
        remembered.setdefault(child.conversation_id, []).extend(result.messages)
    return ChildReply(
        turn_id=child.turn_id,
        status=TurnStatus.COMPLETED,
        text=result.text,
        usage=result.usage,
        steps=answer.spent.steps,
    )


def _handed_to(agent: AgentDefinition) -> dict[str, AgentDefinition]:
    """The agents that a turn may be handed over to, by any number of handoffs."""
    found = {agent.name: agent}
    waiting = [agent]
    while waiting:
        for name, target in waiting.pop().handoffs().items():
            if name not in found:
                found[name] = target
                waiting.append(target)
    return found


def _last(agent: AgentDefinition, progress: TurnProgress) -> AgentDefinition:
    """The agent that answered: the first, or one that it led to by handoffs."""
    seen = agent
    for step in progress.steps:
        if isinstance(step, ToolStep) and step.handoff is not None:
            seen = seen.handoff_to(step.handoff) or seen
    return seen
