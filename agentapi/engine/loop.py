"""The agent loop: model response, parallel tool calls, model response, until a reply.

It knows neither Redis nor Celery. Steps that were already recorded, by this process or by one that
died, are passed in as progress, and the loop continues after the last of them. Each step is written
to a `TurnLog` before the next one begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.attachments import Fetch, blobs_of, no_blobs, remembering
from agentapi.conversation.compaction import with_summary
from agentapi.conversation.finish import COMPLETE, FinishReason, OnIncomplete
from agentapi.conversation.joining import joined
from agentapi.conversation.messages import AssistantMessage, Message, ToolCall, UserMessage
from agentapi.engine.client_calls import is_last_word, marked, offered
from agentapi.engine.continuing import CUT_OUTPUT, check_complete, goes_on
from agentapi.engine.measuring import count_cost
from agentapi.engine.model_call import call_model
from agentapi.engine.offers import Offer, journaled, seen_by
from agentapi.engine.patience import RetryPolicy, ride_out
from agentapi.engine.progress import TurnProgress
from agentapi.engine.reply_format import InvalidReply
from agentapi.engine.requested import NOTHING_REQUESTED, Requested
from agentapi.engine.rules import TurnRules
from agentapi.engine.tool_calls import CallRunner, Suspension, calls_to_hold
from agentapi.engine.turn_log import NoLog, TurnLog
from agentapi.errors import (
    AgentAPIError,
    BudgetExceeded,
    ContextTooLong,
    InvalidOutput,
    MaxStepsExceeded,
    StoreUnavailable,
    ToolsFailed,
    UnknownAgent,
)
from agentapi.providers.base import ModelRequest, ModelResponse, Provider
from agentapi.providers.estimate import calibrated
from agentapi.tools.base import Toolbox
from agentapi.tools.context import ToolContext
from agentapi.turns.budget import Limits, priced
from agentapi.turns.calls import CallBook
from agentapi.turns.client_tools import NOT_ANSWERED, ClientTools
from agentapi.turns.model import TurnResult
from agentapi.turns.steps import ModelStep

_WAIT_HERE = RetryPolicy()
_NOTHING_WAITED = CallBook()
_DEFAULT_RULES = TurnRules()


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The conversation before a turn.

    Attributes:
        messages: The earlier messages, to which the agent's window is applied.
        summary: A summary of what precedes these messages.
        calibration: The provider's count of tokens divided by our estimate.
        blobs: Fetches the bytes of attachments by their names.
    """

    messages: Sequence[Message] = ()
    summary: str = ""
    calibration: float = 1.0
    blobs: Fetch = no_blobs


@dataclass(kw_only=True)
class TurnRun:
    """One run of a turn: until it has a reply, or must wait.

    Attributes:
        agent: The agent that the turn begins with.
        history: The conversation before the turn.
        progress: The steps so far. Every further step is added to it.
        context: For prompts, tools and hooks, with the context as it is stored.
        log: Receives each step before the next one begins. The last response is not recorded: it is
            part of the result, which the caller commits.
        connect: Returns the running event loop's client of an agent's provider.
        stream: Whether the log receives pieces of the text.
        retry: How to retry failed model calls. Failures of earlier attempts count for the first
            call only.
        book: What has become of calls that waited.
        rules: Limits of the turn.
        agents: Agents that the turn may be handed over to, by name.
        client: The client's tools, if the turn has any.
        requested: The options that the turn's request sets.
        interrupted: Whether an earlier attempt may have ended in the middle of its calls. An
            attempt that parked has not: it parks before it makes calls, or after they are done.
        adopt: Receives agents that tools of a tools function hand over to. Without it, they must
            already be among `agents`.
    """

    agent: AgentDefinition
    history: History
    progress: TurnProgress
    context: ToolContext
    log: TurnLog
    connect: Callable[[AgentDefinition], Provider]
    stream: bool = False
    retry: RetryPolicy = _WAIT_HERE
    book: CallBook = _NOTHING_WAITED
    rules: TurnRules = _DEFAULT_RULES
    agents: Mapping[str, AgentDefinition] = field(default_factory=dict)
    client: ClientTools | None = None
    requested: Requested = NOTHING_REQUESTED
    interrupted: bool = True
    adopt: Callable[[Mapping[str, AgentDefinition]], None] | None = None
    # Set by `_activate`, again at each handoff.
    _active: AgentDefinition = field(init=False)
    _offer: Offer = field(init=False)
    _provider: Provider = field(init=False)
    _window: Sequence[Message] = field(init=False)
    _limits: Limits = field(init=False)
    _patience: float = field(init=False)
    _blobs: Fetch = field(init=False)
    _offers: dict[str, Offer] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._blobs = remembering(self.history.blobs)
        self._patience = self.retry.patience
        self._activate(self.agent)

    async def run(self) -> TurnResult | Suspension:
        """Run the turn.

        Returns:
            Its result, or what its calls wait for.

        Raises:
            MaxStepsExceeded: The model wants more calls than `agent.max_steps`.
            BudgetExceeded: The turn or its conversation has spent its budget.
            TurnVetoed: A hook ended the turn.
            HookFailed: A hook failed.
            PromptFailed: A function given as `system_prompt` failed.
            ToolsFailed: A function given as `tools` failed.
            InvalidContext: The turn was handed over to an agent with a different context type.
            InvalidOutput: Too many replies were not valid structured output.
            ClientToolRefused: A client tool has the name of one of the agent's own tools.
            IncompleteReply: The model did not complete its reply, and the agent requires that.
            ProviderError: The provider refused, or failed more often than `retry` allows.
            TurnParked: The next attempt is later than `retry` waits.
            UnknownAgent: The turn was handed over to an agent that is not known here.
            LeaseLost: Raised by the log.
        """
        hooks, context = self.agent.hooks, self._offers[self.agent.name].context
        await self._announce_start()
        try:
            outcome = await self._steps()
        except StoreUnavailable:
            # The turn has not ended: this worker or another continues it.
            raise
        # Signals, such as a turn that parks or a lost lease, are not of this type: the turn
        # continues later, so its end is not announced.
        except AgentAPIError as error:
            await hooks.on_turn_end(context, error)
            raise
        if isinstance(outcome, TurnResult):
            await hooks.on_turn_end(context, outcome)
        return outcome

    async def _announce_start(self) -> None:
        """Let hooks change the message once: an attempt that continues after waiting calls runs
        this again."""
        progress = self.progress
        if progress.announced:
            return
        said = progress.user.content
        context = self._offers[self.agent.name].context
        content = await self.agent.hooks.on_turn_start(context, said)
        if content != said:
            progress.user = replace(progress.user, content=content)
        progress.announced = True

    async def _steps(self) -> TurnResult | Suspension:
        """Alternate between tool calls and model calls, beginning with open calls."""
        progress = self.progress
        # Open calls belong to the agent that made them, even if the turn has been handed over
        # since.
        self._hand_over(progress.responder if progress.open_calls() else progress.handed_to)
        resumed = self.interrupted
        while True:
            if calls := progress.open_calls():
                if is_last_word(self.client, calls, self.book):
                    return self._unanswered()
                suspension = await self._call_tools(calls, resumed=resumed)
                if is_last_word(self.client, progress.open_calls(), self.book):
                    return self._unanswered()
                if suspension is not None:
                    return suspension
                self._hand_over(progress.handed_to)
            # An earlier attempt may have begun only the calls that were open at the start.
            resumed = False
            response = progress.last_response
            if response is not None and not response.tool_calls and not self._goes_on():
                return self._result(response)
            # Checked before the call, whose cost is not known yet, so the last call may exceed a
            # budget.
            self._check_limits()
            if response is None or response.tool_calls:
                # A reply that is being continued is finished first.
                await self.log.joined(progress.steps)
            try:
                await self._call_model()
            except ContextTooLong:
                if response is None or response.tool_calls:
                    raise
                # The reply filled the context: the turn keeps the part that exists.
                return self._result(response)

    def _hand_over(self, name: str | None) -> None:
        """Continue with the agent of that name, if it is not the current one."""
        if name is None or name == self._active.name:
            return
        agent = self.agents.get(name) or self._active.handoff_to(name)
        if agent is None:
            raise UnknownAgent(
                f"the turn was handed over to agent {name!r}, which is not known here: add its "
                "module to AGENTAPI_AGENTS on every worker"
            )
        self._activate(agent)

    def _activate(self, agent: AgentDefinition) -> None:
        self._active = agent
        if agent.name not in self._offers:
            begun = journaled(self.progress.steps, self.agent.name, agent.name)
            self._offers[agent.name] = Offer(
                agent=agent,
                request=self.requested.of(agent, begun.policy),
                context=seen_by(agent, self.context),
                rules=self.rules,
                begun=begun,
                # Not a method of this run: a run that refers to itself would be freed only by the
                # garbage collector, with everything that it holds.
                met=self.adopt or partial(_refuse_unknown, self.agents, agent.name),
            )
        self._offer = self._offers[agent.name]
        self._provider = self.connect(agent)
        # Each agent has its own window, model and limits, so a handoff replaces all of them.
        self._window = agent.window.select(self.history.messages, self.history.calibration)
        self._limits = agent.limits.tighter(self.rules.budget)
        own = self._patience if agent.patience is None else agent.patience
        if own != self.retry.patience:
            self.retry = replace(self.retry, patience=own)

    async def _call_tools(self, calls: Sequence[ToolCall], *, resumed: bool) -> Suspension | None:
        runner = CallRunner(
            tools=await ride_out(self._offer.toolbox, self.retry),
            progress=self.progress,
            context=self._offer.context,
            context_type=self._active.context,
            agents=self.agents,
            log=self.log,
            book=self.book,
            rules=self.rules,
            resumed=resumed,
            hooks=self._active.hooks,
            limits=self._limits,
            client=self.client,
        )
        return await runner.run(calls, self.progress.held)

    def _unanswered(self) -> TurnResult:
        """The result of a turn that completes with calls of its client."""
        response = self.progress.last_response
        return TurnResult(
            text=response.content if response else "",
            messages=tuple(self.progress.messages(unfinished=NOT_ANSWERED.text)),
            usage=self.progress.usage,
            steps=len(self.progress.steps),
            agent=self._active.name,
        )

    def _result(self, response: AssistantMessage) -> TurnResult:
        agent = self._active
        structured = self._offer.request.reply is not None
        check_complete(agent, response, structured=structured)
        own = None if self._offer.request.bare else agent.output
        output = None
        if own is not None and response.finish_reason in COMPLETE:
            output = own.load(response.content)
        return replace(self.progress.result(), agent=agent.name, output=output)

    def _goes_on(self, step: ModelStep | None = None) -> bool:
        """Whether the model continues its reply: the reply of the latest step, or of a new step."""
        # A request that limits its reply itself asks for no more.
        bounded = self._offer.request.sampling.max_output_tokens is not None
        if bounded or self._active.on_incomplete is not OnIncomplete.CONTINUE:
            return False
        progress = self.progress
        if step is not None:
            progress = replace(progress, steps=[*progress.steps, step])
        if not goes_on(self._active, progress):
            return False
        try:
            # If the turn may not spend more, the reply stays as it is.
            self._check_limits(progress)
        except BudgetExceeded:
            return False
        return True

    def _check_limits(self, progress: TurnProgress | None = None) -> None:
        """Raises an error if the turn may not call the model again."""
        progress = progress or self.progress
        agent, spent = self._active, progress.spent
        if progress.model_calls >= agent.max_steps:
            raise MaxStepsExceeded(
                f"agent {agent.name!r} still wants to call tools after {agent.max_steps} model "
                "responses: raise Agent(max_steps=...) or make the task smaller"
            )
        self._limits.check(spent, "turn")
        agent.conversation_limits.check(self.rules.spent_before + spent, "conversation")

    async def _call_model(self) -> None:
        """Call the model; its response is the next step."""
        agent, progress = self._active, self.progress
        messages = [*self._window, *progress.for_model()]
        call = _Call(self, messages)
        call.history = len(self._window)
        # Structured output is shown once it is valid, in the form in which it is stored.
        shown = self.log if self._offer.request.reply is None else NoLog()
        began = time.perf_counter()
        answer = await call_model(
            self._provider,
            call.prepare,
            shown,
            stream=self.stream,
            retry=self.retry,
            calls_shown=self.client.names if self.client else frozenset(),
        )
        seconds = time.perf_counter() - began
        # The earlier attempt's failures belonged to the call that has just succeeded.
        if self.retry.failures or self.retry.failing_for:
            self.retry = replace(self.retry, failures=0, failing_for=0.0)
        message = replace(
            answer.message,
            tool_calls=_unique_calls(answer.message, progress),
            turn_id=self.context.turn_id,
            model=answer.model,
            finish_reason=answer.finish,
        )
        if self.client is not None and message.tool_calls:
            message = marked(message, self.client, call.tools)
        # Runs before the response is recorded: another attempt must continue from the hook's
        # version.
        message = await agent.hooks.on_step(self._offer.context, message)
        if message.finish_reason is not answer.finish:
            # The hook created a new message.
            message = replace(message, finish_reason=answer.finish)
        if agent.window.tokens is not None:
            progress.calibration = call.calibration(answer)
        usage = priced(answer.usage, answer.model, self.rules.prices)
        count_cost(answer.model, usage.cost)
        before = progress.last_response
        # The steps before this one are complete: a response to a reply continues that reply.
        continued = before is not None and not before.tool_calls
        if before is not None and continued:
            message = joined(before, message)
        step = ModelStep(message=message, usage=usage, continued=continued, seconds=seconds)
        more = self._goes_on(step)
        step = step if more else await _checked(self._offer, call.tools, step)
        await self._take(self._offer.sign(step, progress.steps, self.agent.name), more=more)

    async def _take(self, step: ModelStep, *, more: bool) -> None:
        """Record a response that is not the final reply, and count invalid ones."""
        agent, message = self._active, step.message
        valid = step.rejected is None
        structured = self._offer.request.reply is not None
        if self.stream and structured and valid and not more and message.content:
            if message.finish_reason is FinishReason.REFUSAL:
                await self.log.delta(message.content, refusal=True)
            else:
                await self.log.delta(message.content)
        # Recorded before the next step begins, because a recorded step never runs again (promise
        # 6). A valid reply is not recorded: the commit that follows stores it, which saves a round
        # trip. A rejected reply is, so that another attempt does not start with fresh retries; so
        # is a part of a reply that is continued.
        if message.tool_calls or not valid or more:
            await self.log.record(step, self.progress.steps)
        else:
            self.progress.steps.append(step)
            self.progress.reply = step
        if self.progress.rejections > agent.output_retries:
            raise InvalidOutput(
                f"agent {agent.name!r} replied {self.progress.rejections} times without matching "
                "its output_type or the requested JSON: raise Agent(output_retries=...), or "
                f"describe the format in its prompt. The last rejection: {step.rejected}"
            )


class _Call:
    """One model call, with the tools that it offers."""

    def __init__(self, run: TurnRun, messages: Sequence[Message]) -> None:
        self._run = run
        self._offer = run._offer
        self._provider = run._provider
        self._messages = messages
        self._summary = run.history.summary
        self._blobs = run._blobs
        self.history = 0
        self.tools = Toolbox(self._offer.agent.name, ())

    async def prepare(self) -> ModelRequest:
        agent, request = self._offer.agent, self._offer.request
        # Read for each call, because an MCP server's tools may change during a turn.
        self.tools = await self._offer.toolbox()
        names = blobs_of(self._messages)
        blobs = await self._blobs(names) if names else {}
        prompt = with_summary(await self._offer.prompt(), self._summary)
        made = ModelRequest(
            model=agent.model or self._provider.default_model,
            system_prompt=prompt,
            messages=self._messages,
            tools=self.tools.specs,
            options=agent.options,
            output=request.reply.spec if request.reply else None,
            blobs=blobs,
            history=self.history,
            sampling=request.sampling,
        )
        client = self._run.client
        return made if client is None else offered(made, client, self._run.progress)

    def calibration(self, answer: ModelResponse) -> float | None:
        """The provider's count of tokens divided by our estimate; None if it did not count.

        Also None with images and files, because the estimate covers only text.
        """
        if any(isinstance(m, UserMessage) and m.attachments for m in self._messages):
            return None
        return calibrated(answer.usage.input_tokens, answer.estimate or 0)


def _refuse_unknown(
    known: Mapping[str, AgentDefinition], agent: str, others: Mapping[str, AgentDefinition]
) -> None:
    """Refuse agents that only this process knows: another worker could not take over the turn."""
    unknown = ", ".join(sorted(set(others) - set(known)))
    if unknown:
        raise ToolsFailed(
            f"agent {agent!r}: its tools function returned tools for agents that are not "
            f"registered: {unknown}; add their modules to AGENTAPI_AGENTS on every worker"
        )


async def _checked(offer: Offer, tools: Toolbox, step: ModelStep) -> ModelStep:
    """The step with its checks: which calls need approval, and whether the output is valid."""
    message, reply = step.message, offer.request.reply
    if message.tool_calls:
        held = await calls_to_hold(tools, message.tool_calls, offer.context)
        return replace(step, held=held)
    if reply is None:
        return step
    if message.finish_reason is FinishReason.LENGTH:
        # Never parsed: truncated JSON may look complete.
        fails = offer.agent.on_incomplete is OnIncomplete.FAIL
        return step if fails else replace(step, rejected=CUT_OUTPUT)
    if message.finish_reason not in COMPLETE:
        return step
    try:
        text = reply.read(message.content)
    except InvalidReply as error:
        return replace(step, rejected=str(error))
    return replace(step, message=replace(message, content=text))


def _unique_calls(message: AssistantMessage, progress: TurnProgress) -> tuple[ToolCall, ...]:
    """Make call ids unique in the turn, so that no call takes another's result."""
    if not message.tool_calls:
        return ()
    seen = progress.call_ids
    calls: list[ToolCall] = []
    for number, call in enumerate(message.tool_calls):
        unique = call.id
        if not unique or unique in seen:
            unique = f"call_{progress.model_calls}_{number}_{call.id}"[:40]
        seen.add(unique)
        calls.append(call if unique == call.id else replace(call, id=unique))
    return tuple(calls)
