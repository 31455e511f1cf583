"""Requests that answer calls of a turn: function outputs and approvals.

A request names the calls by ids that contain the turn's id. If the turn waits for them, the request
continues the turn, including all results of its own tools. Otherwise, a request that contains the
whole conversation gets a new turn with that conversation as its history.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from agentapi.conversation.messages import AssistantMessage, Message, ToolMessage, UserMessage
from agentapi.decoding.plain import cut
from agentapi.errors import TurnNotFound
from agentapi.turns import (
    Answers,
    ClientOutput,
    ClientTools,
    Continuation,
    Decision,
    OnBusy,
    RequestOptions,
    Turn,
    Verdict,
)
from agentapi.turns.calls import CallKind
from agentapi.turns.client_tools import NOT_ANSWERED
from orchestrator.gateway.http.errors import Conflict, InvalidRequest
from orchestrator.gateway.ids import approval_id, function_call_id, turn_of_call
from orchestrator.gateway.openai.function_items import (
    ApprovalDecision,
    FunctionCall,
    FunctionOutput,
    FunctionRound,
)
from orchestrator.gateway.openai.function_tools import AskedTools
from orchestrator.gateway.openai.input import Entry, GivenCall, InputMessage, Reference
from orchestrator.gateway.openai.parts import ends_of, messages_of_turn
from orchestrator.gateway.tenants.ledger import Admission
from orchestrator.gateway.turn_labels import Labels, labelled, labels_in, labels_of
from orchestrator.gateway.turn_submission import Existing, NewMessage, accept
from orchestrator.gateway.view import TenantView


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The answers of a request.

    Attributes:
        turn: The turn whose calls it answers.
        outputs: Outputs by the id that the client knows.
        decisions: Decisions by the id of the request for approval.
        then: The user's messages after the answers.
    """

    turn: Turn
    outputs: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[str, ApprovalDecision] = field(default_factory=dict)
    then: Sequence[InputMessage] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Following:
    """How the turn continues.

    Attributes:
        agent: The agent that the request names.
        metadata: The request's metadata.
        labels: How it was requested.
        stream: Whether it is streamed.
        tools: Its tool parameters.
        options: Its other options, as far as the policy accepts them.
    """

    agent: str
    metadata: Mapping[str, Any]
    labels: Labels
    stream: bool
    tools: AskedTools
    options: RequestOptions | None


def opening_of(entries: Sequence[Entry]) -> str:
    """A digest of a request's content."""
    said = [_plain(entry) for entry in entries]
    return hashlib.sha256(orjson.dumps(said)).hexdigest()[:32]


def _plain(entry: Entry) -> Any:
    match entry:
        case InputMessage():
            attached = [asdict(each) for each in entry.attached]
            digest = hashlib.sha256(repr(attached).encode()).hexdigest() if attached else None
            return ["message", entry.role, entry.text, digest]
        case GivenCall() | Reference():
            return [type(entry).__name__, entry.id]
        case FunctionCall():
            return ["call", entry.call_id]
        case FunctionOutput():
            return ["output", entry.id, entry.text]
        case ApprovalDecision():
            return ["approval", entry.id, entry.approve]
        case FunctionRound():
            return ["round", [call.call_id for call in entry.calls]]


def rounds(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with function calls and their outputs combined into rounds.

    Raises:
        InvalidRequest: An output has no call.
    """
    found: list[Entry] = []
    for entry in entries:
        last = found[-1] if found else None
        match entry:
            case FunctionCall() if isinstance(last, FunctionRound) and not last.outputs:
                found[-1] = replace(last, calls=(*last.calls, entry))
            case FunctionCall():
                text = ""
                if isinstance(last, InputMessage) and last.role == "assistant":
                    text = last.text
                    found.pop()
                found.append(FunctionRound(text=text, calls=(entry,)))
            case FunctionOutput():
                at = _round_of(found, entry.id)
                if at is None:
                    raise InvalidRequest(
                        f"{entry.place} is the output of call {entry.id!r}, which is neither in "
                        "the request nor waiting: send the call before its output",
                        param=entry.place,
                        code="call_not_found",
                    )
                known = found[at]
                if isinstance(known, FunctionRound):
                    found[at] = replace(known, outputs={**known.outputs, entry.id: entry.text})
            case ApprovalDecision():
                raise InvalidRequest(
                    f"{entry.place} answers an approval request that is not waiting: it was "
                    "decided, or its response is no longer stored",
                    param=entry.place,
                    code="approval_not_pending",
                )
            case _:
                found.append(entry)
    return found


def _round_of(found: Sequence[Entry], call_id: str) -> int | None:
    for at in range(len(found) - 1, -1, -1):
        entry = found[at]
        if isinstance(entry, FunctionRound) and call_id in [c.call_id for c in entry.calls]:
            return at
    return None


async def answered_by(
    view: TenantView, entries: Sequence[Entry], *, named: str | None, whole: bool
) -> Answered | None:
    """Find the turn whose calls a request answers; None if it continues no turn.

    Args:
        view: The caller's view.
        entries: The content of the request.
        named: The turn that the request continues by name, if it does.
        whole: Whether the request contains the whole conversation, and not only new messages.

    Raises:
        StoreUnavailable: Redis is out of reach.
    """
    given = [e for e in entries if isinstance(e, FunctionOutput | ApprovalDecision)]
    turn_id = named or (turn_of_call(given[-1].id) if given else None)
    if turn_id is None or (not given and named is None):
        return None
    try:
        turn = await view.turn(turn_id)
    except TurnNotFound:
        return None
    mine = [e for e in given if turn_of_call(e.id) == turn.turn_id]
    if (not mine and not await _asks(view, turn)) or (whole and not _goes_on(turn, entries)):
        return None
    last = max((at for at, entry in enumerate(entries) if entry in mine), default=-1)
    tail = entries[last + 1 :]
    then = [e for e in tail if isinstance(e, InputMessage) and e.role == "user"]
    if whole and len(then) < len(tail):
        # The turn has replied, and the conversation has moved on.
        return None
    return Answered(
        turn=turn,
        outputs={e.id: e.text for e in mine if isinstance(e, FunctionOutput)},
        decisions={e.id: e for e in mine if isinstance(e, ApprovalDecision)},
        then=then,
    )


async def _asks(view: TenantView, turn: Turn) -> bool:
    """Whether a turn is waiting for its client."""
    if turn.status.ended or not turn.segments:
        return False
    pending = await view.pending(turn.turn_id)
    return any(c.turn_id == turn.turn_id and c.kind is CallKind.CLIENT for c in pending)


def _goes_on(turn: Turn, entries: Sequence[Entry]) -> bool:
    """Whether a request with the whole conversation begins like the turn's own request."""
    labels = labels_of(turn)
    return labels.opening is not None and labels.opening == opening_of(entries[: labels.said])


async def go_on(view: TenantView, answered: Answered, following: Following) -> int | None:
    """Continue a turn with the answers; returns the number of its new part.

    Returns:
        The part; None if the calls no longer wait for these answers.

    Raises:
        InvalidRequest: Outputs are missing.
        Conflict: A call was already decided differently.
        CallNotPending: Another request gave different answers first.
        RateLimited: The tenant has too many turns in flight, or too many bytes.
        StoreUnavailable: Redis is out of reach.
    """
    turn = answered.turn
    if turn.agent != following.agent:
        return None
    made = await messages_of_turn(view, turn, running=True)
    ids = _call_ids(turn.turn_id, made)
    if (known := _known_part(view, turn, answered, made, ids)) is not None:
        return known
    _refuse_other_verdicts(turn, answered)
    pending = [c for c in await view.pending(turn.turn_id) if c.turn_id == turn.turn_id]
    outputs, missing = {}, []
    decisions = {}
    for call in pending:
        shown = ids.get(call.call_id, "")
        asked = approval_id(turn.turn_id, call.call_id)
        if call.kind is CallKind.APPROVAL and asked in answered.decisions:
            decisions[call.call_id] = _decision(answered.decisions[asked])
        elif call.kind is CallKind.CLIENT and shown in answered.outputs:
            outputs[call.call_id] = ClientOutput(text=answered.outputs[shown])
        else:
            missing.append(call)
    if not outputs and not decisions and not (missing and answered.then):
        return None
    for call in missing:
        if call.kind is CallKind.APPROVAL or not answered.then:
            shown = ids.get(call.call_id, approval_id(turn.turn_id, call.call_id))
            raise InvalidRequest(
                f"no output for call {shown!r} of {call.tool!r}: answer every call of the response "
                "in the same request",
                param="input",
                code="missing_output",
            )
        # The client continued without it, which must always be allowed.
        outputs[call.call_id] = NOT_ANSWERED
    part = len(ends_of(turn))
    verdicts = {
        asked: answered.decisions[asked].approve
        for asked in (approval_id(turn.turn_id, call_id) for call_id in decisions)
    }
    await _count(view, turn, outputs)
    await _say(view, turn, part, answered.then)
    await view.answer(
        turn.turn_id,
        Answers(
            outputs=outputs,
            decisions=decisions,
            continuation=_continuation(turn, part, following, verdicts),
        ),
    )
    return part


def _call_ids(turn_id: str, made: Sequence[Message]) -> dict[str, str]:
    """The client's ids of function calls, by the model's ids."""
    responses = [message for message in made if isinstance(message, AssistantMessage)]
    return {
        call.id: function_call_id(turn_id, number, place)
        for number, message in enumerate(responses)
        for place, call in enumerate(message.tool_calls)
        if call.client
    }


def _known_part(
    view: TenantView,
    turn: Turn,
    answered: Answered,
    made: Sequence[Message],
    ids: Mapping[str, str],
) -> int | None:
    """The part that the same answers already started, if the request is a repeat."""
    results = {m.call_id: m for m in made if isinstance(m, ToolMessage)}
    longest = view.gateway.settings.max_tool_result_bytes
    then = [message.text for message in answered.then]
    users = [message.content for message in made[1:] if isinstance(message, UserMessage)]
    said = users[-len(then) :] if then else []
    for number, end in enumerate(ends_of(turn), 1):
        if number not in turn.parts:
            continue
        given = {call: answered.outputs.get(ids.get(call, "")) for call in end.client}
        decided = labels_in(turn, turn.parts[number]).decisions
        asked = [approval_id(turn.turn_id, call) for call in end.approvals]
        same = (
            said == then
            and all(
                output is not None
                and call in results
                and results[call].content == cut(output, longest)
                for call, output in given.items()
            )
            and all(
                one in answered.decisions and decided.get(one) == answered.decisions[one].approve
                for one in asked
            )
        )
        newest = not any(
            ids.get(call) in answered.outputs
            for later in ends_of(turn)[number:]
            for call in later.client
        ) and not any(
            approval_id(turn.turn_id, call) in answered.decisions
            for later in ends_of(turn)[number:]
            for call in later.approvals
        )
        if same and newest and (given or asked):
            return number
    return None


def _refuse_other_verdicts(turn: Turn, answered: Answered) -> None:
    """Refuse decisions about calls that an earlier request decided differently.

    Raises:
        Conflict: There is such a decision.
    """
    for data in turn.parts.values():
        for asked, approved in labels_in(turn, data).decisions.items():
            given = answered.decisions.get(asked)
            if given is not None and given.approve != approved:
                before = "approved" if approved else "rejected"
                raise Conflict(
                    f"{given.place} decides a call that was already {before}: a decision is final",
                    code="call_not_pending",
                    retry=False,
                )


def _decision(given: ApprovalDecision) -> Decision:
    verdict = Verdict.APPROVED if given.approve else Verdict.REJECTED
    return Decision(verdict=verdict, reason=None if given.approve else given.reason, by="client")


def _continuation(
    turn: Turn, part: int, following: Following, verdicts: Mapping[str, bool]
) -> Continuation:
    # A client's agents that hand over to each other have different instructions.
    options = replace(following.options or RequestOptions(), store=turn.stored)
    client = following.tools.client or ClientTools()
    old, before = turn.client_tools or ClientTools(), {}
    if replace(old, since=0) != client:
        before["client_tools"] = old.to_json().decode()
    if options != (turn.options or RequestOptions()):
        before["options"] = (turn.options or RequestOptions()).to_json().decode()
    labels = replace(
        following.labels,
        streamed=turn.stream,
        stream=following.stream,
        at=int(time.time()),
        decisions=verdicts,
        before=before,
    )
    since = turn.segments[-1].responses if turn.segments else 0
    return Continuation(
        part=part,
        metadata=labelled(following.metadata, labels),
        stream=following.stream,
        client_tools=replace(client, since=since),
        options=options,
    )


async def _count(view: TenantView, turn: Turn, outputs: Mapping[str, ClientOutput]) -> None:
    """Count the turn as in flight again, and count the bytes that the answers add to Redis."""
    size = sum(len(output.text.encode()) for output in outputs.values())
    admission = Admission(
        turn_id=turn.turn_id, conversation_id=turn.conversation_id, bytes=size, turn_bytes=0
    )
    await view.gateway.ledger.admit(view.tenant, admission)


async def _say(view: TenantView, turn: Turn, part: int, then: Sequence[InputMessage]) -> None:
    """Let the user's message join the turn.

    Called before the answers are given: until then, the turn cannot continue without the message. A
    repeat adds it only once, by its key.
    """
    for number, message in enumerate(then):
        if message.attached:
            raise InvalidRequest(
                "a message that follows function outputs cannot contain images or files: send it "
                "with the next request",
                param="input",
            )
        await accept(
            view,
            NewMessage(
                agent=turn.agent,
                text=message.text,
                idempotency_key=f"then:{turn.turn_id}:{part}:{number}",
                user_id=turn.user_id,
                labels=Labels(implicit=labels_of(turn).implicit),
                on_busy=OnBusy.STEER,
            ),
            Existing(conversation_id=view.public(turn.conversation_id)),
        )


def refuse_unanswered(named: bool, entries: Sequence[Entry]) -> None:
    """Refuse answers that no turn waits for, in a request that names its conversation.

    Raises:
        Conflict: There are such answers.
    """
    given = [e for e in entries if isinstance(e, FunctionOutput | ApprovalDecision)]
    if named and given:
        raise Conflict(
            f"{given[-1].place} answers a call that is not waiting: it was answered, its time is "
            "up, or its turn has ended",
            code="call_not_pending",
            retry=False,
        )
