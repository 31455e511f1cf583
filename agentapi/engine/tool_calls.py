"""The tool calls of one model response: makes them, or suspends the turn until they can be made."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import orjson

from agentapi.agents.context_type import ContextType, inherits, stored_context
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.hooks import HookChain
from agentapi.conversation.messages import ToolCall, ToolMessage, Usage
from agentapi.decoding.plain import clean_text, cut
from agentapi.engine.measuring import OK, ToolMeter
from agentapi.engine.progress import TurnProgress
from agentapi.engine.rules import TurnRules
from agentapi.engine.tracing import ToolSpan
from agentapi.engine.turn_log import TurnLog
from agentapi.errors import InvalidContext, TurnVetoed
from agentapi.faults import stop_if_asked
from agentapi.ids import MAX_CONVERSATION_ID, create_turn_id
from agentapi.tools.agents import Handoff
from agentapi.tools.base import BaseTool, Toolbox, as_text, explain
from agentapi.tools.context import ToolContext
from agentapi.tools.delegation import Delegate, Delegation
from agentapi.turns import (
    CallBook,
    ChildReply,
    ChildTurn,
    ClientCall,
    ClientTools,
    HeldCalls,
    Question,
    ToolStep,
    TurnStatus,
    Verdict,
)
from agentapi.turns.budget import Limits

UNKNOWN_OUTCOME = (
    "The outcome of this call is unknown: an earlier attempt was interrupted before the call had a "
    "result. It may or may not have taken effect, and it was not repeated. Find out before you "
    "repeat it."
)

EDITED = (
    "A person changed the arguments of this call before approving it. It was made with these "
    "arguments instead of yours:"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspension:
    """The turn must wait for decisions or for child turns, which wake it.

    Attributes:
        held: What it waits for.
        agents: Definitions of the child turns' agents by name, for tools that have the agent
            object.
    """

    held: HeldCalls
    agents: Mapping[str, object]


async def calls_to_hold(
    tools: Toolbox, calls: Sequence[ToolCall], context: ToolContext
) -> tuple[str, ...]:
    """Ids of the calls that need approval; asked once, before the response is recorded."""
    held = []
    for call in calls:
        tool = tools.get(call.name)
        its_own = replace(context, call_id=call.id)
        if tool is not None and await tool.needs_approval(call.arguments, its_own):
            held.append(call.id)
    return tuple(held)


_Waiting: TypeAlias = Question | ClientCall | tuple[ChildTurn, ...]


@dataclass(frozen=True, kw_only=True)
class CallRunner:
    """Makes the calls of the latest response.

    Attributes:
        tools: The tools that the model may call.
        progress: Gets a step for each result.
        context: For the tools.
        log: Receives each step.
        book: What has become of calls that waited.
        rules: Limits.
        resumed: Whether an earlier attempt may have begun the calls.
        hooks: Run around each call.
        limits: What the turn may spend; child turns share the rest.
        client: The client's tools, if the turn has any.
        context_type: The type of the turn's context, for the agent that made the calls.
        agents: The agents known here, by name.
    """

    tools: Toolbox
    progress: TurnProgress
    context: ToolContext
    log: TurnLog
    book: CallBook
    rules: TurnRules
    resumed: bool
    hooks: HookChain
    limits: Limits
    client: ClientTools | None = None
    context_type: ContextType[Any] | None = None
    agents: Mapping[str, AgentDefinition] = field(default_factory=dict)
    _recording: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked: dict[str, object] = field(default_factory=dict)

    async def run(self, calls: Sequence[ToolCall], held: Sequence[str]) -> Suspension | None:
        """Make the calls that may be made, in parallel. Each result is recorded as it arrives.

        Args:
            calls: Calls without a result.
            held: Ids of calls that need a decision.

        Returns:
            What the other calls wait for; None when every call has its result.
        """
        waiting: dict[str, _Waiting] = {}
        transfers = [c for c in calls if isinstance(self.tools.get(c.name), Handoff)]

        async def run_one(call: ToolCall) -> None:
            # A response can hand over only once; the first handoff counts.
            if call in transfers[1:]:
                done: ToolStep | _Waiting = self._refusal(call, "the conversation has moved on")
            else:
                done = await self._resolve(call, held=call.id in held)
            if isinstance(done, ToolStep):
                await self._record(done)
            else:
                waiting[call.id] = done

        try:
            # Each result is recorded as soon as it arrives: if the worker dies while the slowest
            # tool runs, the other calls are not repeated (promise 6).
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run_one(call)) for call in calls]
        except BaseExceptionGroup as group_error:
            # Only the log or a hook's veto can raise here. The first failure has stopped the
            # others.
            raise group_error.exceptions[0] from group_error
        if any(task.cancelled() for task in tasks):
            # A task group ignores cancelled tasks, and the call would stay without a result.
            raise RuntimeError("a tool or a hook cancelled the task in which it was called")
        return await self._suspension(
            [(call, waiting[call.id]) for call in calls if call.id in waiting]
        )

    async def _suspension(self, waiting: Sequence[tuple[ToolCall, _Waiting]]) -> Suspension | None:
        questions: list[Question] = []
        children: list[ChildTurn] = []
        client: list[ClientCall] = []
        for call, what in waiting:
            if isinstance(what, Question):
                questions.append(what)
            elif isinstance(what, ClientCall):
                client.append(what)
            elif len(children) + len(what) > self.rules.max_children:
                await self._record(
                    self._refusal(
                        call,
                        f"a turn may wait for at most {self.rules.max_children} other turns at the "
                        "same time (AGENTAPI_MAX_CHILDREN): delegate fewer",
                    )
                )
            else:
                children += what
        if children:
            # Split the remaining budget before they start. Otherwise each parallel child could
            # spend all of it.
            share = self.limits.share(self.progress.spent, len(children))
            children = [replace(child, budget=share) for child in children]
        if not questions and not children and not client:
            return None
        held = HeldCalls(
            questions=questions,
            children=children,
            client=client,
            responses=self.progress.responses,
            usage=self.progress.usage,
        )
        return Suspension(held=held, agents=self._asked)

    async def _record(self, step: ToolStep) -> None:
        # The lock makes tools record one at a time: a step's index is its place in the journal, and
        # two tools may finish at the same time.
        async with self._recording:
            await self.log.record(step, self.progress.steps)

    async def _resolve(self, call: ToolCall, *, held: bool) -> ToolStep | _Waiting:
        """The call's result, or what it must wait for."""
        if call.client:
            return self._from_client(call)
        # The tool has already run, in this attempt or an earlier one, and is not called again.
        children = self.book.children.get(call.id)
        if children:
            return self._replies(call, children) if self.book.answered(call.id) else tuple(children)
        # The journal shows only that this call has no result, not whether an earlier attempt made
        # it. Unless the tool is idempotent, the model is told so (promise 6).
        begun = self.resumed
        if held:
            decision = self.book.decisions.get(call.id)
            if decision is None:
                return self._question(call)
            if decision.verdict is Verdict.REJECTED:
                why = f": {decision.reason}" if decision.reason else ""
                return self._refusal(call, f"This call was not allowed{why}")
            # A call that needs approval cannot have begun before the decision, and the store knows
            # whether an earlier attempt was given that decision.
            begun = call.id in self.book.begun_before
            if decision.arguments is not None:
                # The recorded response keeps the model's arguments. The result says which arguments
                # the tool got.
                call = replace(call, arguments=decision.arguments, malformed=None)
        tool = self.tools.get(call.name)
        if begun and not (tool and tool.idempotent):
            gone = f" {self._gone(call.name)}" if call.name in self.tools.missing else ""
            return self._refusal(call, UNKNOWN_OUTCOME + gone)
        began = time.perf_counter()
        done = await self._make(call)
        if isinstance(done, ToolStep):
            return replace(done, seconds=time.perf_counter() - began)
        return done

    def _from_client(self, call: ToolCall) -> ToolStep | ClientCall:
        if call.malformed is not None:
            return self._refusal(call, "invalid arguments: they are not a JSON object")
        output = self.book.outputs.get(call.id)
        if output is not None:
            text = self._shortened(output.text)
            return ToolStep(message=self._message(call, text, is_error=output.is_error))
        own = self.client.timeout if self.client else None
        return ClientCall(
            call_id=call.id,
            tool=call.name,
            arguments=call.arguments,
            timeout=self.rules.client_tool_timeout if own is None else own,
            number=self._place(call),
        )

    def _question(self, call: ToolCall) -> Question:
        tool = self.tools.get(call.name)
        own = tool.approval_timeout if tool else None
        return Question(
            call_id=call.id,
            tool=call.name,
            arguments=call.arguments,
            timeout=self.rules.approval_timeout if own is None else own,
            default=tool.approval_default if tool else Verdict.REJECTED,
            number=self._place(call),
            schema=tool.spec.parameters if tool else None,
        )

    async def _make(self, call: ToolCall) -> ToolStep | _Waiting:
        tool = self.tools.get(call.name)
        if tool is None:
            return self._refusal(call, self._gone(call.name))
        if call.malformed is not None:
            return self._refusal(call, "invalid arguments: they are not a JSON object")
        meter = ToolMeter(tool.name)
        try:
            with ToolSpan(tool.name, call) as span:
                result = await self._invoke(tool, call)
                span.returned(result)
        except BaseException as error:
            meter.ended("failed")
            # The model reads the error of a user's function, and the turn continues.
            stop_if_asked(error)
            if isinstance(error, TurnVetoed):
                raise
            return self._refusal(call, self._shortened(explain(error)))
        meter.ended(OK)
        if isinstance(result, Delegation):
            return self._children(call, result)
        handoff = tool.target if isinstance(tool, Handoff) else None
        return ToolStep(message=self._message(call, self._shortened(result)), handoff=handoff)

    def _gone(self, name: str) -> str:
        known = ", ".join(spec.name for spec in self.tools.specs) or "none"
        if name in self.tools.missing:
            return f"The tool {name!r} is no longer available; the tools are: {known}"
        return f"there is no tool {name!r}; the tools are: {known}"

    def _shortened(self, text: str) -> str:
        return cut(text, self.rules.max_tool_result_bytes)

    async def _invoke(self, tool: BaseTool, call: ToolCall) -> str | Delegation:
        context = replace(self.context, call_id=call.id)

        async def make(wanted: ToolCall) -> str | Delegation:
            return await tool.invoke(wanted.arguments, context)

        result = await self.hooks.on_tool(context, call, make)
        # A user's tool or hook may return anything.
        return result if isinstance(result, Delegation) else as_text(result)

    def _children(self, call: ToolCall, delegation: Delegation) -> ToolStep | _Waiting:
        if self.rules.depth >= self.rules.max_depth:
            return self._refusal(
                call,
                f"turns may delegate at most {self.rules.max_depth} levels deep "
                "(AGENTAPI_MAX_DEPTH), and this turn is at that level: do the task without "
                "delegating",
            )
        turns = [
            replace(turn, agent=clean_text(turn.agent), message=clean_text(turn.message))
            for turn in delegation.turns
        ]
        longest = max(len(turn.message.encode()) for turn in turns)
        if longest > self.rules.max_message_bytes:
            return self._refusal(
                call,
                f"a message to another agent has {longest} bytes, the limit is "
                f"{self.rules.max_message_bytes}: shorten it",
            )
        # For `Agent.run`, which has no registry of agents.
        self._asked.update({t.agent: t.definition for t in turns if t.definition})
        try:
            return tuple(
                self._child(call, number, turn, listed=delegation.listed)
                for number, turn in enumerate(turns)
            )
        except InvalidContext as error:
            return self._refusal(call, str(error))

    def _child(self, call: ToolCall, number: int, turn: Delegate, *, listed: bool) -> ChildTurn:
        """A child turn. Its ids derive from its parent's, so another attempt creates the same
        child."""
        name = f"{self.context.turn_id}:{call.id}:{number}"
        # Named after the parent's conversation, so that later delegations continue it.
        if turn.remembers:
            conversation_id = f"{self.context.conversation_id}/{turn.agent}"
        else:
            conversation_id = f"turn:{self.context.turn_id}/{_digest(name)[:12]}"
        if len(conversation_id) > MAX_CONVERSATION_ID:
            conversation_id = f"turn:{_digest(conversation_id)}"
        known = self.agents.get(turn.agent) or turn.definition
        theirs = known.context if isinstance(known, AgentDefinition) else None
        return ChildTurn(
            call_id=call.id,
            turn_id=create_turn_id(conversation_id, name),
            conversation_id=conversation_id,
            agent=turn.agent,
            input=turn.message,
            timeout=turn.timeout,
            lasting=turn.remembers,
            listed=listed,
            number=self._place(call),
            context=None if turn.context is None else stored_context(turn.context, theirs),
            inherits=inherits(self.context_type, theirs),
        )

    def _place(self, call: ToolCall) -> int:
        """The call's place among all calls of the turn: by response, then within the response."""
        response = self.progress.last_response
        # By id, because an approved call may have arguments that differ from the response's.
        ids = [asked.id for asked in response.tool_calls] if response else [call.id]
        place = ids.index(call.id)
        return self.progress.model_calls * 1000 + place

    def _replies(self, call: ToolCall, children: Sequence[ChildTurn]) -> ToolStep:
        replies = [self.book.replies[child.turn_id] for child in children]
        usage = sum((reply.usage for reply in replies), start=Usage())
        steps = sum(reply.steps for reply in replies)
        failed = any(reply.status is not TurnStatus.COMPLETED for reply in replies)
        if children[0].listed:
            text = orjson.dumps([_to_json(reply) for reply in replies]).decode()
            failed = all(reply.status is not TurnStatus.COMPLETED for reply in replies)
        else:
            text = replies[0].shown if not failed else _failure(replies[0])
        message = self._message(call, text, is_error=failed)
        return ToolStep(message=message, usage=usage, steps=steps)

    def _refusal(self, call: ToolCall, text: str) -> ToolStep:
        return ToolStep(message=self._message(call, text, is_error=True))

    def _message(self, call: ToolCall, content: str, *, is_error: bool = False) -> ToolMessage:
        return ToolMessage(
            call_id=call.id,
            name=call.name,
            content=self._note_of_edit(call) + content,
            is_error=is_error,
            turn_id=self.context.turn_id,
        )

    def _note_of_edit(self, call: ToolCall) -> str:
        """The note for the model about a call whose arguments a person changed."""
        decision = self.book.decisions.get(call.id)
        if decision is None or decision.arguments is None:
            return ""
        arguments = orjson.dumps(decision.arguments).decode()
        return f"{EDITED}\n{arguments}\nThe result of that call:\n"


def _to_json(reply: ChildReply) -> str | dict[str, str]:
    if reply.status is TurnStatus.COMPLETED:
        return reply.shown
    return {"error": _failure(reply)}


def _failure(reply: ChildReply) -> str:
    if reply.error is None:
        return f"the turn was {reply.status}"
    return f"the turn failed ({reply.error.code}): {reply.error.message}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
