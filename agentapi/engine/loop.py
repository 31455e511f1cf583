"""The agent loop: model response, tool calls side by side, model response, until a reply.

It knows neither Redis nor Celery. What was recorded before (by this process or by one that
died) comes in as steps, and the loop continues behind the last of them; what happens goes out
through a `TurnLog` before the next step begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pydantic import ValidationError

from agentapi.agents.definition import AgentDefinition
from agentapi.agents.output import explain_output
from agentapi.conversation.attachments import Fetch, blobs_of, no_blobs, remembering
from agentapi.conversation.compaction import with_summary
from agentapi.conversation.messages import AssistantMessage, Message, ToolCall, Usage, UserMessage
from agentapi.engine.model_call import RetryPolicy, call_model, ride_out
from agentapi.engine.progress import TurnProgress
from agentapi.engine.tool_calls import CallRunner, TurnRules, TurnSuspended, calls_to_hold
from agentapi.errors import (
    AgentAPIError,
    InvalidOutput,
    LeaseLost,
    MaxStepsExceeded,
    StoreUnavailable,
    TurnParked,
    UnknownAgent,
)
from agentapi.providers.base import ModelRequest, Provider
from agentapi.providers.estimate import estimate_request
from agentapi.tools.base import Toolbox
from agentapi.tools.context import ToolContext
from agentapi.turns.budget import priced
from agentapi.turns.calls import CallBook
from agentapi.turns.model import TurnResult
from agentapi.turns.steps import ModelStep, Step

_WAIT_HERE = RetryPolicy()
_NOTHING_WAITED = CallBook()
_DEFAULT_RULES = TurnRules()
_NO_AGENTS: Mapping[str, AgentDefinition] = {}


class TurnLog(Protocol):
    """Where the loop writes down what happens, as it happens."""

    async def record(self, step: Step) -> None:
        """Keep a step for ever; returns when it is safe.

        Raises:
            LeaseLost: The turn is no longer this process's.
        """
        ...

    async def delta(self, text: str) -> None:
        """A piece of text arrived."""
        ...

    async def reset(self) -> None:
        """The text since the last step will be produced again."""
        ...


class NoLog:
    """A log for turns that nobody else will continue or follow."""

    async def record(self, step: Step) -> None:
        """Nothing to keep."""

    async def delta(self, text: str) -> None:
        """Nobody listens."""

    async def reset(self) -> None:
        """Nobody listens."""


async def run_loop(
    agent: AgentDefinition,
    provider: Provider,
    *,
    history: Sequence[Message],
    progress: TurnProgress,
    context: ToolContext,
    log: TurnLog,
    connect: Callable[[AgentDefinition], Provider],
    stream: bool = False,
    retry: RetryPolicy = _WAIT_HERE,
    book: CallBook = _NOTHING_WAITED,
    rules: TurnRules = _DEFAULT_RULES,
    agents: Mapping[str, AgentDefinition] = _NO_AGENTS,
    summary: str = "",
    calibration: float = 1.0,
    blobs: Fetch = no_blobs,
) -> TurnResult:
    """Carry a turn on to its reply.

    Args:
        agent: Definition: prompt, model, tools, `max_steps`, window.
        provider: The client to call, of the running event loop.
        history: Messages before this turn; the agent's window is applied here.
        progress: What is done already. Gets every further step.
        context: For the tools.
        log: Told of each step before the next begins. The last response is not recorded on
            its own: it is in the result, which the caller commits.
        stream: Whether the log gets the text's pieces.
        retry: What to do about model calls that fail in passing. Failures of earlier attempts
            count for the first call only.
        book: What has become of calls that waited.
        rules: Limits on what the turn may ask of others.
        agents: Those that the turn may be handed over to by name.
        connect: Gives the client of an agent that the turn is handed over to.
        summary: Of what came before the history.
        calibration: Tokens that the provider counts for one that is estimated.
        blobs: Fetches the bytes of attachments by their names.

    Raises:
        MaxStepsExceeded: The model wants more calls than `agent.max_steps`.
        BudgetExceeded: The turn or its conversation has spent what it may.
        TurnVetoed: A hook ended the turn.
        HookFailed: A hook has a fault.
        InvalidOutput: It replied too often with what is not the agent's `output_type`.
        ProviderError: The provider refused, or failed more often than `retry` allows.
        TurnParked: The provider is to be tried again later than `retry` waits.
        TurnSuspended: Calls wait for decisions or for other turns.
        UnknownAgent: The turn was handed over to an agent that is not known here.
        LeaseLost: From the log.
    """
    hooks = agent.hooks
    said = await hooks.on_turn_start(context, progress.user.content)
    progress.user = replace(progress.user, content=said)
    try:
        result = await _carry_on(
            agent,
            provider,
            history=history,
            progress=progress,
            context=context,
            log=log,
            stream=stream,
            retry=retry,
            book=book,
            rules=rules,
            agents=agents,
            connect=connect,
            summary=summary,
            calibration=calibration,
            blobs=remembering(blobs),
        )
    except (TurnParked, TurnSuspended, LeaseLost, StoreUnavailable):
        # None of these ends the turn.
        raise
    except AgentAPIError as error:
        await hooks.on_turn_end(context, error)
        raise
    await hooks.on_turn_end(context, result)
    return result


async def _carry_on(
    agent: AgentDefinition,
    provider: Provider,
    *,
    history: Sequence[Message],
    progress: TurnProgress,
    context: ToolContext,
    log: TurnLog,
    stream: bool,
    retry: RetryPolicy,
    book: CallBook,
    rules: TurnRules,
    agents: Mapping[str, AgentDefinition],
    connect: Callable[[AgentDefinition], Provider],
    summary: str,
    calibration: float,
    blobs: Fetch,
) -> TurnResult:
    """See `run_loop`."""
    # Calls without a result are for the tools of the agent that made them.
    whose = progress.responder if progress.open_calls() else progress.handed_to
    agent, provider = _active(agent, provider, whose, agents, connect)
    window = agent.window.select(history, calibration)
    resumed = True
    while True:
        if calls := progress.open_calls():
            runner = CallRunner(
                tools=await ride_out(agent.toolbox, retry),
                progress=progress,
                context=context,
                log=log,
                book=book,
                rules=rules,
                resumed=resumed,
                hooks=agent.hooks,
                limits=agent.limits.tighter(rules.budget),
            )
            await runner.run(calls, progress.held)
            agent, provider = _active(agent, provider, progress.handed_to, agents, connect)
            window = agent.window.select(history, calibration)
        resumed = False
        response = progress.last_response
        if response is not None and not response.tool_calls:
            output = agent.output.load(response.content) if agent.output else None
            return replace(progress.result(), agent=agent.name, output=output)
        if progress.model_calls >= agent.max_steps:
            raise MaxStepsExceeded(
                f"agent {agent.name!r} still wants to call tools after {agent.max_steps} model "
                "responses: raise Agent(max_steps=...) or make the task smaller"
            )
        agent.limits.tighter(rules.budget).check(progress.spent, "turn")
        agent.conversation_limits.check(rules.spent_before + progress.spent, "conversation")
        call = _Call(agent, provider, [*window, *progress.for_model()], summary, blobs)
        # A reply of a type is shown when it was accepted, as it is kept.
        shown = log if agent.output is None else NoLog()
        answer = await call_model(provider, call.prepare, shown, stream=stream, retry=retry)
        retry = replace(retry, failures=0)
        message = replace(
            _unique_calls(answer.message, progress), turn_id=context.turn_id, model=answer.model
        )
        message = await agent.hooks.on_step(context, message)
        if agent.window.tokens is not None:
            progress.calibration = call.calibration(answer.usage.input_tokens)
        usage = priced(answer.usage, answer.model, rules.prices)
        step = await _judged(agent, call.tools, message, usage)
        if stream and agent.output is not None and step.rejected is None and step.message.content:
            await log.delta(step.message.content)
        if message.tool_calls or step.rejected is not None:
            await log.record(step)
        progress.steps.append(step)
        if progress.rejections > agent.output_retries:
            raise InvalidOutput(
                f"agent {agent.name!r} replied {progress.rejections} times with what is not its "
                f"output_type: raise Agent(output_retries=...), or say in its prompt what is "
                f"wanted. The last time: {step.rejected}"
            )


class _Call:
    """One model call, with the tools that it offers."""

    def __init__(
        self,
        agent: AgentDefinition,
        provider: Provider,
        messages: Sequence[Message],
        summary: str,
        blobs: Fetch,
    ) -> None:
        self._agent = agent
        self._provider = provider
        self._messages = messages
        self._summary = summary
        self._blobs = blobs
        self._prompt = agent.system_prompt
        self.tools = Toolbox(agent.name, ())

    async def prepare(self) -> ModelRequest:
        agent = self._agent
        self.tools = await agent.toolbox()
        names = blobs_of(self._messages)
        blobs = await self._blobs(names) if names else {}
        self._prompt = with_summary(agent.system_prompt, self._summary)
        return ModelRequest(
            model=agent.model or self._provider.default_model,
            system_prompt=self._prompt,
            messages=self._messages,
            tools=self.tools.specs,
            options=agent.options,
            output=agent.output.spec if agent.output else None,
            blobs=blobs,
        )

    def calibration(self, counted: int) -> float | None:
        """Tokens that the provider counted for one that was estimated; None when it did not.

        None too with images and files, which are not estimated: they would pass for text.
        """
        attached = any(isinstance(m, UserMessage) and m.attachments for m in self._messages)
        estimate = estimate_request(self._prompt, self._messages, self.tools.specs)
        if not counted or not estimate or attached:
            return None
        return min(max(counted / estimate, 0.25), 4.0)


async def _judged(
    agent: AgentDefinition, tools: Toolbox, message: AssistantMessage, usage: Usage
) -> ModelStep:
    """A response as a step: which calls wait, whether the reply is what was asked for."""
    if message.tool_calls:
        held = await calls_to_hold(tools, message.tool_calls)
        return ModelStep(message=message, usage=usage, held=held)
    if agent.output is None:
        return ModelStep(message=message, usage=usage)
    try:
        _, text = agent.output.read(message.content)
    except ValidationError as error:
        return ModelStep(message=message, usage=usage, rejected=explain_output(error))
    return ModelStep(message=replace(message, content=text), usage=usage)


def _active(
    agent: AgentDefinition,
    provider: Provider,
    name: str | None,
    agents: Mapping[str, AgentDefinition],
    connect: Callable[[AgentDefinition], Provider],
) -> tuple[AgentDefinition, Provider]:
    """The agent of that name that the turn was handed over to, and its provider's client."""
    if name is None or name == agent.name:
        return agent, provider
    target = agents.get(name) or agent.handoff_to(name)
    if target is None:
        raise UnknownAgent(
            f"the turn was handed over to agent {name!r}, which is not known here: add its module "
            "to AGENTAPI_AGENTS, on every worker"
        )
    return target, connect(target)


def _unique_calls(message: AssistantMessage, progress: TurnProgress) -> AssistantMessage:
    """Call ids must be unique in a turn, or one call would take another's result."""
    seen = {
        call.id
        for step in progress.steps
        if isinstance(step, ModelStep)
        for call in step.message.tool_calls
    }
    calls: list[ToolCall] = []
    for number, call in enumerate(message.tool_calls):
        unique = call.id
        if not unique or unique in seen:
            unique = f"call_{progress.model_calls}_{number}_{call.id}"[:40]
        seen.add(unique)
        calls.append(call if unique == call.id else replace(call, id=unique))
    return replace(message, tool_calls=tuple(calls))
