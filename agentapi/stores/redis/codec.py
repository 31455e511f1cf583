"""Converts turns, their ends and their events from and to their stored form in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import orjson

from agentapi.conversation.compaction import Summary
from agentapi.conversation.finish import COMPLETE, FinishReason
from agentapi.conversation.messages import (
    AssistantMessage,
    Usage,
    attachment_from_dict,
    attachment_to_dict,
    from_dict,
    to_dict,
)
from agentapi.decoding.records import PROTOCOL, check_version, reading, record_of, some_text_in
from agentapi.errors import UnreadableRecord
from agentapi.stores.answers import Ending
from agentapi.stores.conversations import Place
from agentapi.turns import (
    ClientTools,
    Continuation,
    Event,
    EventType,
    ForkOrigin,
    ModelStep,
    OnAbort,
    Segment,
    Step,
    Turn,
    TurnError,
    TurnKind,
    TurnSpec,
    TurnStatus,
    UserStep,
    WaitingFor,
    WaitKind,
)
from agentapi.turns.budget import Limits, Spent
from agentapi.turns.kinds import kind_of
from agentapi.turns.request_options import RequestOptions

_WITH_CLIENT_TOOLS: Final = 2
"""Record version of a turn with client tools."""

_REFERRING: Final = 3
"""Record version of an ended turn that refers to the messages in its conversation's history."""


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """A flat list of fields and values as a dict."""
    # A name that is not valid UTF-8 is unknown to every release.
    return {flat[i].decode(errors="replace"): flat[i + 1] for i in range(0, len(flat), 2)}


def texts(fields: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """A hash as the Redis client returns it, with field names as text."""
    return {name.decode(errors="replace"): value for name, value in fields.items()}


def turn_from_hash(turn_id: str, fields: Mapping[str, bytes]) -> Turn:
    """Read a turn's hash.

    Raises:
        UnreadableRecord: It was written by a newer release, or by no release.
    """
    what = f"turn {turn_id}"
    with reading(what, remedy="enqueue its message again as a new turn"):
        newest = _WITH_CLIENT_TOOLS if "client_tools" in fields else PROTOCOL
        # The scripts unpack such a record. A value that begins with "0" is one that they could not
        # read.
        if "at" in fields or "0" in fields:
            newest = _REFERRING
        check_version(what, int(fields.get("v", PROTOCOL)), newest)
        return _turn(turn_id, _spelled_out(fields) if newest == _REFERRING else fields)


def _spelled_out(fields: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The fields of a turn that refers to its history, with the messages filled in."""
    agent = fields["agent"].decode()
    outcome: dict[str, Any] = {"answered_by": agent}
    if "outcome" in fields:
        outcome = _object(fields["outcome"])
    outcome["messages"] = orjson.loads(fields.get("messages", b"[]"))
    outcome["usage"] = usage_from(fields["usage"])
    text = outcome["messages"][0]["content"] if outcome["messages"] else ""
    defaults = {
        "input": text.encode(),
        "user": b"",
        "metadata": b"{}",
        "stream": b"0",
        "on_abort": OnAbort.DROP.encode(),
        "kind": TurnKind.AGENT.encode(),
    }
    return {**defaults, **fields, "outcome": orjson.dumps(outcome)}


def usage_to(usage: Usage) -> str:
    """Usage as a list of numbers; `usage_from` reads it."""
    tokens = (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
    return ",".join([*map(str, tokens), repr(usage.cost) if usage.cost else "0"])


def usage_from(text: bytes) -> dict[str, float]:
    """Read what `usage_to` wrote."""
    *tokens, cost = text.decode().split(",")
    names = ("input_tokens", "output_tokens", "cached_tokens")
    return {**dict(zip(names, map(int, tokens), strict=True)), "cost": float(cost)}


def spec_to_fields(spec: TurnSpec) -> dict[str, bytes | str | int]:
    """The fields of a turn's hash that are written at its acceptance; `_spec` reads them."""
    fields: dict[str, bytes | str | int] = {
        "v": PROTOCOL,
        "kind": spec.kind,
        "conversation": spec.conversation_id,
        "agent": spec.agent,
        "input": spec.input,
        "user": spec.user_id or "",
        "tenant": spec.tenant_id or "",
        "metadata": orjson.dumps(dict(spec.metadata)),
        "stream": int(spec.stream),
        "on_abort": spec.on_abort,
    }
    if spec.on_failure is not None:
        # Separate from on_abort, whose values older releases know.
        fields["on_failure"] = spec.on_failure
    if spec.parent_id is not None:
        fields |= {"parent": spec.parent_id, "depth": spec.depth}
    if spec.budget is not None:
        fields["budget"] = spec.budget.to_json()
    if spec.attachments:
        fields["attachments"] = orjson.dumps([attachment_to_dict(a) for a in spec.attachments])
    if spec.client_tools is not None:
        # Older releases would ignore the tools, so the version makes them leave the turn to newer
        # ones.
        fields |= {"v": _WITH_CLIENT_TOOLS, "client_tools": spec.client_tools.to_json()}
    if spec.prior:
        fields["prior"] = orjson.dumps([to_dict(message) for message in spec.prior])
    if spec.options is not None and not spec.options.empty:
        fields["options"] = spec.options.to_json()
    if spec.context is not None:
        fields["context"] = orjson.dumps(dict(spec.context))
    if spec.trace is not None:
        fields["trace"] = spec.trace
    if spec.forked_from is not None:
        fields["forked"] = orjson.dumps(spec.forked_from)
    return fields


def _spec(turn_id: str, fields: Mapping[str, bytes]) -> dict[str, Any]:
    agent = fields["agent"].decode()
    return {
        "turn_id": turn_id,
        "kind": _kind(fields.get("kind"), agent),
        "conversation_id": fields["conversation"].decode(),
        "agent": agent,
        "input": fields["input"].decode(),
        "user_id": fields["user"].decode() or None,
        "tenant_id": fields["tenant"].decode() or None,
        "metadata": _object(fields["metadata"]),
        "stream": fields["stream"] == b"1",
        "on_abort": OnAbort(fields["on_abort"].decode()),
        "on_failure": OnAbort(fields["on_failure"].decode()) if "on_failure" in fields else None,
        "deadline_at": _seconds(fields.get("deadline")),
        "parent_id": fields["parent"].decode() if "parent" in fields else None,
        "depth": int(fields.get("depth", 0)),
        "budget": Limits.from_json(fields["budget"]) if "budget" in fields else None,
        "attachments": tuple(map(attachment_from_dict, orjson.loads(fields["attachments"])))
        if "attachments" in fields
        else (),
        "client_tools": ClientTools.from_json(fields["client_tools"])
        if "client_tools" in fields
        else None,
        "prior": tuple(map(from_dict, orjson.loads(fields["prior"]))) if "prior" in fields else (),
        "options": RequestOptions.from_json(fields["options"]) if "options" in fields else None,
        "context": _object(fields["context"]) if "context" in fields else None,
        # A broken trace context is ignored later; it must not fail the turn.
        "trace": fields["trace"].decode(errors="replace") if "trace" in fields else None,
        "forked_from": record_of(ForkOrigin, _object(fields["forked"]))
        if "forked" in fields
        else None,
    }


def _kind(stored: bytes | None, agent: str) -> TurnKind:
    if stored is None:
        # Written by a release that told kinds apart by the agent's name.
        return kind_of(agent)
    try:
        return TurnKind(stored.decode())
    except ValueError as error:
        raise UnreadableRecord(
            "the turn is of a kind that this release does not know: upgrade every worker "
            "to the newest release in use",
            newer=True,
        ) from error


def _turn(turn_id: str, fields: Mapping[str, bytes]) -> Turn:
    outcome = _object(fields.get("outcome", b"{}"))
    messages = tuple(from_dict(message) for message in outcome.get("messages", ()))
    status = TurnStatus(fields["status"].decode())
    last = messages[-1] if messages else None
    replied = status is TurnStatus.COMPLETED and isinstance(last, AssistantMessage)
    error = outcome.get("error")
    return Turn(
        **_spec(turn_id, fields),
        status=status,
        attempt=int(fields.get("attempt", 0)),
        handbacks=int(fields.get("handbacks", 0)),
        deferrals=int(fields.get("deferrals", 0)),
        parks=int(fields.get("parks", 0)),
        losses=int(fields.get("losses", 0)),
        deaths=int(fields.get("deaths", 0)),
        suspect="suspect" in fields,
        failures=_failures(fields),
        worker=fields["worker"].decode() if "worker" in fields else None,
        wakes_at=_seconds(fields.get("wake")) if status is TurnStatus.PARKED else None,
        waiting_for=_waiting_for(fields, status),
        steps=int(fields.get("steps", 0)),
        usage=record_of(Usage, outcome.get("usage", {})),
        text=last.content if replied and last else None,
        messages=messages,
        error=record_of(TurnError, error) if error else None,
        answered_by=some_text_in(outcome, "answered_by"),
        structured=bool(outcome.get("structured")),
        cancel_requested="cancel" in fields,
        last_event=int(fields.get("events", 0)) - 1,
        segments=_segments(fields.get("segments")),
        parts=_parts(fields) if "segments" in fields else {},
        steered="steered" in fields,
        created_at=int(fields["created"]) / 1000,
        started_at=_seconds(fields.get("started")),
        ended_at=_seconds(fields.get("ended")),
    )


def _segments(stored: bytes | None) -> tuple[Segment, ...]:
    """Read the places where a turn asked its client or a person, one per line."""
    return tuple(map(Segment.from_json, stored.splitlines())) if stored else ()


def _parts(fields: Mapping[str, bytes]) -> dict[int, dict[str, Any]]:
    prefix = "part:"
    return {
        int(name.removeprefix(prefix)): _object(data)
        for name, data in fields.items()
        if name.startswith(prefix)
    }


def continuation_to_fields(continuation: Continuation) -> dict[str, bytes | int]:
    """The fields of a turn's hash that a request changes when it answers calls."""
    name = f"part:{continuation.part}"
    fields: dict[str, bytes | int] = {name: orjson.dumps(dict(continuation.metadata))}
    if continuation.stream is not None:
        fields["stream"] = int(continuation.stream)
    if continuation.client_tools is not None:
        fields["client_tools"] = continuation.client_tools.to_json()
    if continuation.options is not None:
        fields["options"] = continuation.options.to_json()
    return fields


def _object(data: bytes) -> dict[str, Any]:
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise TypeError("it is not an object")
    return value


def place_from(stored: bytes | None) -> Place | None:
    """Read the place at which a turn that left no messages ended."""
    position, _, digest = (stored or b"").decode().partition(":")
    return Place(position=int(position), digest=digest) if position else None


def spent_from(fields: Sequence[bytes | None]) -> Spent:
    """Read a conversation's totals: steps, tokens, cost.

    Raises:
        UnreadableRecord: They are not numbers.
    """
    steps, tokens, cost = fields
    with _reading_meta():
        return Spent(steps=int(steps or 0), tokens=int(tokens or 0), cost=float(cost or 0))


def summary_from(fields: Sequence[bytes | None], total: int) -> Summary:
    """Read a conversation's summary: its text, and how many messages it covers.

    Raises:
        UnreadableRecord: They were not written by any release.
    """
    text, covered = fields
    with _reading_meta():
        return Summary(text=(text or b"").decode(), covered=int(covered or 0), total=total)


def calibration_from(field: bytes | None) -> float:
    """Read a conversation's calibration; raises like `spent_from`."""
    with _reading_meta():
        return float(field or 1)


def contexts_from(field: bytes | None) -> dict[str, int]:
    """Read what a conversation learned about its models' contexts; raises like `spent_from`."""
    if field is None:
        return {}
    with _reading_meta():
        return {name: int(tokens) for name, tokens in _object(field).items()}


def answering_from(field: bytes) -> str | None:
    """Read the agent that a conversation was handed over to; raises like `spent_from`."""
    with _reading_meta():
        return field.decode() or None


def _reading_meta() -> AbstractContextManager[None]:
    return reading("the meta hash of a conversation", remedy="delete the conversation")


def _failures(fields: Mapping[str, bytes]) -> int:
    """Failures of the next model call; failures of earlier calls no longer count."""
    if "failures" not in fields:
        return 0
    same_call = fields.get("failures_at") == fields.get("steps", b"0")
    return int(fields["failures"]) if same_call else 0


def _seconds(value: bytes | None) -> float | None:
    return int(value) / 1000 if value is not None else None


def outcome_to_json(ending: Ending) -> bytes:
    """The outcome that is stored in a turn's hash, without its messages (see commit.lua)."""
    return orjson.dumps({"usage": ending.usage, **_besides(ending)})


def besides_usage(ending: Ending) -> bytes:
    """The part of the outcome other than messages and usage; empty if there is none."""
    besides = _besides(ending)
    return orjson.dumps(besides) if besides else b""


def _besides(ending: Ending) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    if ending.error is not None:
        outcome["error"] = ending.error.to_dict()
    if ending.answered_by is not None:
        outcome["answered_by"] = ending.answered_by
    if ending.structured:
        outcome["structured"] = True
    return outcome


def ending_event(ending: Ending) -> dict[str, Any]:
    """Data of the event that ends a turn."""
    if ending.error is not None:
        return ending.error.to_dict()
    event: dict[str, Any] = {"steps": ending.steps, "tokens": ending.usage.total_tokens}
    if (reason := ending.finish_reason) not in (None, FinishReason.STOP):
        event["finish_reason"] = reason
    return event


def parked_event(
    delay: float, reason: str, names: Sequence[str] = (), failures: int = 0
) -> dict[str, Any]:
    """Data of the event of a parked turn."""
    event: dict[str, Any] = {"seconds": round(delay, 3), "reason": reason}
    if names:
        event["waits_for"] = " or ".join(names)
    if failures:
        event["failures"] = failures
    return event


def waits_to_json(kind: str, names: Sequence[str]) -> bytes:
    """What a parked turn waits for, in the form that its hash stores."""
    return orjson.dumps({"kind": kind, "names": list(names)})


def _waiting_for(fields: Mapping[str, bytes], status: TurnStatus) -> WaitingFor | None:
    if "waits_for" not in fields or status.ended:
        return None
    # A step recorded since then shows that the call has succeeded.
    if fields.get("failures_at") != fields.get("steps", b"0"):
        return None
    waits = _object(fields["waits_for"])
    # A newer release may have other kinds; the turn can still be read.
    if not waits.get("names") or waits.get("kind") not in {kind.value for kind in WaitKind}:
        return None
    return WaitingFor(
        kind=WaitKind(waits["kind"]),
        names=tuple(map(str, waits["names"])),
        failures=int(fields.get("failures", 0)),
        since=_seconds(fields.get("failing")),
        next_try_at=_seconds(fields.get("wake")) if status is TurnStatus.PARKED else None,
    )


def step_event(index: int, step: Step) -> dict[str, Any]:
    """Data of the event of a recorded step."""
    event: dict[str, Any] = {"index": index, "kind": step.kind}
    if isinstance(step, ModelStep):
        event["tools"] = [call.name for call in step.message.tool_calls]
        event["calls"] = [call.id for call in step.message.tool_calls]
        if client := [call.id for call in step.message.tool_calls if call.client]:
            event["client"] = client
        if step.held:
            event["held"] = list(step.held)
        if step.message.model is not None:
            event["model"] = step.message.model
        if step.rejected is not None:
            event["rejected"] = True
        if step.message.finish_reason not in COMPLETE:
            event["finish_reason"] = step.message.finish_reason
    elif isinstance(step, UserStep):
        event |= {"tools": [], "calls": []}
    else:
        event["tools"] = [step.message.name]
        event["calls"] = [step.message.call_id]
        event["failed"] = step.message.is_error
    return event


def event_from_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    """Read an entry of an event stream; its id is the event's number plus one.

    One reader serves many turns, so one bad entry must not stop it. An entry that this release
    cannot read keeps its number and becomes `EventType.UNKNOWN`. An event that ends a turn always
    remains one.
    """
    number = int(entry_id.partition(b"-")[0]) - 1
    name = fields.get(b"type", b"").decode(errors="replace")
    try:
        kind, data = EventType(name), orjson.loads(fields[b"data"])
        readable = isinstance(data, dict) and all(need in data for need in _NEEDED.get(kind, ()))
    except (ValueError, LookupError):
        readable, data = False, {}
    if readable:
        return Event(number=number, type=kind, data=data)
    if name in _ENDS:
        return Event(number=number, type=EventType(name), data={})
    return Event(number=number, type=EventType.UNKNOWN, data={"type": name})


_NEEDED: Final[Mapping[EventType, Sequence[str]]] = {
    EventType.DELTA: ("text",),
    EventType.STEP: ("index", "kind", "tools"),
}
"""The fields that readers of an event require."""

_ENDS: Final = frozenset(kind.value for kind in EventType if kind.ends)
