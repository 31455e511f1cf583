"""A turn to enqueue, and its checks before anything is written."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard, TypeVar

import orjson

from agentapi.agents.context_type import stored_context
from agentapi.agents.names import is_agent_name, is_internal, unknown_agent
from agentapi.conversation.messages import Message
from agentapi.conversation.user_input import UserInput, check_message, content_of
from agentapi.decoding.plain import clean_text
from agentapi.decoding.shown import shown
from agentapi.errors import InvalidInput
from agentapi.ids import (
    MAX_KEY,
    check_conversation_id,
    conversation_id_of_key,
    create_conversation_id,
    create_turn_id,
)
from agentapi.settings import Settings
from agentapi.turns import (
    ClientOutput,
    ClientTools,
    Decision,
    NewTurn,
    OnAbort,
    OnBusy,
    RequestOptions,
    Verdict,
)
from agentapi.turns.client_tool_input import NewClientTools, client_tools_of
from agentapi.turns.kinds import kind_of
from orchestrator.fork import ForkRequest

if TYPE_CHECKING:
    from agentapi import Agent
    from agentapi.agents.definition import AgentDefinition

MAX_METADATA_BYTES = 16_384

MAX_ARGUMENTS_BYTES = 262_144
"""Maximum size of a call's edited arguments, as JSON."""

MAX_REASON = 16_384
"""Maximum characters of a decision's reason."""


class FlowOptions(TypedDict, total=False):
    """Options of `Orchestrator.gather` and `chain`; see `TurnRequest`."""

    user_id: str | None
    tenant_id: str | None
    idempotency_key: str | None
    metadata: Mapping[str, Any] | None
    deadline: float | None
    context: object | None


class ForkOptions(TypedDict, total=False):
    """Options of `Orchestrator.fork`."""

    step: int
    message: UserInput | None
    idempotency_key: str | None
    by: str | None


class TurnOptions(FlowOptions, total=False):
    """Options of `Orchestrator.enqueue`; see `TurnRequest`."""

    conversation_id: str | None
    stream: bool
    on_busy: OnBusy | str | None
    on_abort: OnAbort | str | None
    client_tools: NewClientTools | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnRequest:
    """One turn to enqueue.

    Attributes:
        agent: Name of a registered agent, or the agent itself.
        message: What the user says: text, or a list of texts, `Image` and `File`.
        conversation_id: The conversation to continue; a new one when not given.
        user_id: The user; stored when the conversation begins.
        tenant_id: The tenant the conversation belongs to.
        idempotency_key: The caller's name for this turn in its conversation. A second request
            with the same key returns the first turn, whatever else the request contains.
        metadata: The caller's own JSON object, returned with the turn.
        stream: Whether the turn's events contain the reply's text while it arrives.
        on_busy: What to do if the conversation has turns that have not ended: ``enqueue``,
            ``reject``, ``interrupt``, ``replace``, ``merge`` or ``steer``; the setting when not
            given. A message is merged only into a turn that no worker has begun and that has the
            same agent, user, metadata, context, stream and on_abort, if both fit into one message.
            A message steers only a turn that a worker has begun and that has the same agent, user
            and context, and only if it has no attachments and no deadline; otherwise it is
            enqueued.
        on_abort: What a cancelled or failed turn leaves in the history: ``drop`` (nothing) or
            ``keep`` (the user's message and the finished steps); the setting when not given.
            Without either, a failed turn keeps them and a cancelled turn drops them.
        deadline: Seconds from now after which the turn, with all turns that it delegates to, fails
            if it has not ended. Waiting counts, including for approvals.
        client_tools: Functions that the caller runs itself. The turn parks when the model calls
            one; `TurnHandle.answer` gives the output.
        prior: For gateways: messages after the user's message that the caller supplies: model
            responses with the outputs of their calls.
        options: Further options of the request, as far as the agent's `RequestPolicy` allows.
        idle_time: Seconds of inactivity after which the conversation is deleted; the setting when
            not given.
        context: What prompts, tools and hooks get as `TurnContext.context`: a value of the agent's
            `context_type`, or a mapping; at most 65,536 bytes as JSON. The producer checks it if it
            knows the agent; the worker always does.
    """

    agent: str | Agent
    message: UserInput
    conversation_id: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] | None = None
    stream: bool = False
    on_busy: OnBusy | str | None = None
    on_abort: OnAbort | str | None = None
    deadline: float | None = None
    client_tools: NewClientTools | None = None
    prior: Sequence[Message] = ()
    options: RequestOptions | None = None
    idle_time: float | None = None
    context: object | None = None


def new_turn(
    request: TurnRequest,
    known: Mapping[str, AgentDefinition],
    settings: Settings,
    *,
    internal: bool = False,
) -> NewTurn:
    """Check a request, and convert it to the form that the store takes.

    Args:
        request: The caller's request.
        known: Agents registered in this process; if there are none, the workers check the name.
        settings: The producer's settings, with the limits.
        internal: Whether the agent may be one of agentapi's internal agents.

    Raises:
        UnknownAgent: Agents are registered here, and this one is not among them.
        InternalAgent: It is one of agentapi's internal agents, and `internal` is not set.
        InvalidMessage: The message is empty, too large or not text.
        InvalidConversationId: The conversation's id is not valid.
        InvalidContext: The context does not match the agent's `context_type`.
        InvalidInput: The key, an id, the metadata or a policy is not valid.
        ClientToolRefused: A client tool is not valid, or has the name of one of the agent's own.
    """
    agent = named(request.agent) if is_agent(request.agent) else request.agent
    if not is_agent_name(agent):
        raise unknown_agent(agent, known)
    if not internal:
        refuse_internal(agent)
        if known and agent not in known:
            raise unknown_agent(agent, known)
    content = content_of(request.message, settings.max_attachment_bytes)
    message = check_message(content.text, settings.max_message_bytes)
    key = _short_text("idempotency_key", request.idempotency_key)
    if request.conversation_id is not None:
        conversation_id = check_conversation_id(request.conversation_id)
    else:
        # Derived from the key: with a random id, a repeat would begin another conversation.
        conversation_id = conversation_id_of_key(key) if key else create_conversation_id()
    on_abort = _choice("on_abort", OnAbort, request.on_abort, settings.on_abort)
    return NewTurn(
        turn_id=create_turn_id(conversation_id, key),
        conversation_id=conversation_id,
        agent=agent,
        kind=kind_of(agent),
        input=message,
        user_id=_short_text("user_id", request.user_id),
        tenant_id=_short_text("tenant_id", request.tenant_id),
        metadata=(
            {}
            if request.metadata is None
            else _json_object("metadata", request.metadata, MAX_METADATA_BYTES)
        ),
        stream=_flag("stream", request.stream),
        on_busy=_choice("on_busy", OnBusy, request.on_busy, settings.on_busy),
        on_abort=on_abort or OnAbort.DROP,
        on_failure=OnAbort.KEEP if on_abort is None else None,
        timeout=_deadline(request.deadline),
        attachments=content.attachments,
        blobs=content.blobs,
        context=_context(request, agent, known),
        options=_options(request.options, settings),
        idle_time=request.idle_time,
        client_tools=_client_tools(request.client_tools, known.get(agent)),
        prior=tuple(request.prior),
    )


def _client_tools(
    value: NewClientTools | None, agent: AgentDefinition | None
) -> ClientTools | None:
    tools = client_tools_of(value)
    # The worker repeats the check with tools from functions and MCP servers, and with agents that
    # this process does not know.
    if tools is not None and agent is not None:
        # Imported here, because a producer without agents does not need the agent loop.
        from agentapi.engine.client_calls import check_names

        check_names(tools, [each.name for each in agent.tools])
    return tools


def is_agent(value: object) -> TypeGuard[str | Agent]:
    """Whether a value names an agent, or is one. Avoids importing the class, which is slow."""
    return isinstance(value, str) or hasattr(value, "definition")


def named(agent: str | Agent) -> str:
    """The name of an agent."""
    return agent if isinstance(agent, str) else agent.name


def _options(options: RequestOptions | None, settings: Settings) -> RequestOptions | None:
    if options is None or options.empty:
        return None
    if options.instructions is not None:
        size = len(options.instructions.encode())
        if size > settings.max_message_bytes:
            raise InvalidInput(
                f"the instructions have {size} bytes, the limit is {settings.max_message_bytes} "
                "(AGENTAPI_MAX_MESSAGE_BYTES)"
            )
    if options.output is not None:
        # Imported here, because most producers never ask for a format.
        from agentapi.engine.reply_format import check_requested

        check_requested(options.output)
    return options


def _context(
    request: TurnRequest, name: str, known: Mapping[str, AgentDefinition]
) -> Mapping[str, Any] | None:
    asked = known.get(name) if isinstance(request.agent, str) else request.agent.definition
    return stored_context(request.context, None if asked is None else asked.context)


class InternalAgent(InvalidInput):
    """The agent is one of agentapi's internal agents."""

    code = "internal_agent"


def refuse_internal(agent: str) -> None:
    """Check that callers may name an agent.

    Raises:
        InternalAgent: It is one of agentapi's internal agents.
    """
    if is_internal(agent):
        raise InternalAgent(
            f"{shown(agent)} is one of agentapi's own agents and cannot be enqueued by name: name "
            "one of your agents, or use Orchestrator.gather or chain to ask several"
        )


def check_decision(call_id: object, decision: Decision) -> None:
    """Check that a decision can be stored.

    Raises:
        InvalidInput: The call's id, the reason, the name of who decided or the arguments are not
            valid.
    """
    _short_text("by", decision.by)
    if decision.verdict is Verdict.EDITED:
        _json_object("arguments", decision.arguments, MAX_ARGUMENTS_BYTES)
    elif decision.arguments is not None:
        raise InvalidInput("a decision has arguments only if its verdict is 'edited'")
    for name, text in (("call_id", call_id), ("reason", decision.reason)):
        if text is None and name == "reason":
            continue
        if not isinstance(text, str) or clean_text(text) != text or len(text) > MAX_REASON:
            raise InvalidInput(
                f"{name} is {shown(text)}: expected Unicode text of at most {MAX_REASON} characters"
            )


def check_outputs(outputs: Mapping[str, ClientOutput], longest: int) -> None:
    """Check that outputs of client tools can be stored.

    Args:
        outputs: The outputs by call id.
        longest: Maximum bytes of one output.

    Raises:
        InvalidInput: One of them is not text, or too long.
    """
    for call_id, output in outputs.items():
        for name, text in (("call_id", call_id), ("output", output.text)):
            if not isinstance(text, str) or clean_text(text) != text:
                raise InvalidInput(f"{name} is {shown(text)}: expected Unicode text")
        if (size := len(output.text.encode())) > longest:
            raise InvalidInput(
                f"the output of a call has {size} bytes, the limit is {longest} "
                "(AGENTAPI_MAX_TOOL_RESULT_BYTES): shorten it"
            )


C = TypeVar("C", bound=StrEnum)
D = TypeVar("D", bound=StrEnum | None)


def fork_request(turn_id: str, options: ForkOptions) -> ForkRequest:
    """Check the options of a fork.

    Raises:
        InvalidInput: The key or the name of who asks is not valid.
    """
    return ForkRequest(
        turn_id=turn_id,
        step=options.get("step", 0),
        message=options.get("message"),
        key=_short_text("idempotency_key", options.get("idempotency_key")) or uuid.uuid4().hex,
        by=_short_text("by", options.get("by")),
    )


def _choice(name: str, choices: type[C], value: object, default: D) -> C | D:
    if value is None:
        return default
    try:
        return choices(str(value))
    except ValueError:
        known = ", ".join(choices)
        raise InvalidInput(f"{name} is {shown(value)}: expected one of {known}") from None


def _deadline(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InvalidInput(f"deadline is {shown(value)}: expected seconds above 0")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {shown(value)}: expected True or False")
    return value


def _short_text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KEY or clean_text(value) != value:
        raise InvalidInput(
            f"{name} is not valid: expected Unicode text of 1 to {MAX_KEY} characters"
        )
    return value


def _json_object(name: str, value: object, longest: int) -> Mapping[str, Any]:
    expected = f"expected a JSON object of at most {longest} bytes"
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} is a {type(value).__name__}: {expected}")
    try:
        size = len(orjson.dumps(dict(value)))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise InvalidInput(f"{name} is not valid: {error}; {expected}") from error
    if size > longest:
        raise InvalidInput(f"{name} has {size} bytes: {expected}")
    return dict(value)
