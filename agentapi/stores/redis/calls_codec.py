"""Converts waiting calls from and to the fields of their hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson

from agentapi.conversation.finish import FinishReason, finish_reason_of
from agentapi.conversation.messages import Usage
from agentapi.decoding.records import reading, record_of
from agentapi.stores.lists import TurnSummary
from agentapi.turns import (
    CallBook,
    CallKind,
    ChildReply,
    ChildTurn,
    ClientCall,
    ClientOutput,
    Decision,
    HeldCalls,
    PendingCall,
    Question,
    Turn,
    TurnError,
    TurnStatus,
    Verdict,
)
from agentapi.turns.budget import Limits
from agentapi.turns.client_tools import NOT_IN_TIME

NOBODY = "expiry"
"""The recorded decider of a call that nobody decided in time."""

_REMEDY: Final = "cancel the turn and enqueue its message again"


_ANSWERS: Final = {CallKind.APPROVAL: "a", CallKind.CLIENT: "o"}
"""Prefix of the fields that hold answers."""


def held_to_json(held: HeldCalls) -> bytes:
    """What a turn waits for, in the form that suspend.lua reads. Parts that it only stores are JSON
    text."""
    children: dict[str, list[ChildTurn]] = {}
    for child in held.children:
        children.setdefault(child.call_id, []).append(child)
    return orjson.dumps(
        {
            "questions": [_question(question) for question in held.questions],
            "children": [
                {
                    "call": call_id,
                    "list": orjson.dumps([_child_to_dict(child) for child in group]).decode(),
                    "turns": [child.turn_id for child in group],
                }
                for call_id, group in children.items()
            ],
            "client": [_client_call(call) for call in held.client],
            "segment": segment.to_json().decode() if (segment := held.segment) else None,
            "responses": held.responses,
        }
    )


def _client_call(call: ClientCall) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "call": call.call_id,
        "record": orjson.dumps(asdict(call)).decode(),
        "default": output_to_json(NOT_IN_TIME).decode(),
    }
    if call.timeout is not None:
        asked["timeout"] = round(call.timeout * 1000)
    return asked


def output_to_json(output: ClientOutput) -> bytes:
    """The output of a client's call as it is stored."""
    return orjson.dumps(asdict(output))


def _output_from_json(data: bytes) -> ClientOutput:
    return record_of(ClientOutput, orjson.loads(data))


def _child_to_dict(child: ChildTurn) -> dict[str, Any]:
    data = asdict(child)
    # Most children have neither, and every byte would be stored.
    if child.context is None:
        del data["context"]
    if child.inherits:
        del data["inherits"]
    return data


def _question(question: Question) -> dict[str, Any]:
    default = Decision(verdict=question.default, by=NOBODY)
    asked: dict[str, Any] = {
        "call": question.call_id,
        "question": orjson.dumps(asdict(question)).decode(),
        "default": decision_to_json(default).decode(),
    }
    if question.timeout is not None:
        asked["timeout"] = round(question.timeout * 1000)
    return asked


def decision_to_json(decision: Decision) -> bytes:
    """A decision as it is stored.

    The same decision has the same bytes in every release, because repeats are recognised by them.
    So a decision without arguments is stored without that field.
    """
    record = asdict(decision)
    arguments = record.pop("arguments")
    if arguments is not None:
        record["arguments"] = orjson.Fragment(orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS))
    return orjson.dumps(record)


def decision_from_json(data: bytes) -> Decision:
    """Read a decision."""
    value = orjson.loads(data)
    return record_of(Decision, {**value, "verdict": Verdict(value["verdict"])})


def reply_to_json(reply: ChildReply) -> bytes:
    """A child's reply in the form that its parent stores."""
    data = asdict(reply)
    if reply.finish_reason is FinishReason.STOP:
        del data["finish_reason"]
    return orjson.dumps(data)


def _reply_from_json(data: bytes) -> ChildReply:
    value = orjson.loads(data)
    error = value.get("error")
    read = {
        "status": TurnStatus(value["status"]),
        "error": record_of(TurnError, error) if error else None,
        "usage": record_of(Usage, value.get("usage", {})),
        "finish_reason": finish_reason_of(value.get("finish_reason")),
    }
    return record_of(ChildReply, {**value, **read})


def call_book(fields: Mapping[str, bytes], epoch: int) -> CallBook:
    """The outcomes of calls, for the worker of an epoch.

    Raises:
        UnreadableRecord: A part of it was not written by any release.
    """
    with reading("a turn's waiting call", remedy=_REMEDY):
        return CallBook(
            decisions={key: decision_from_json(value) for key, value in _of("a", fields)},
            begun_before=frozenset(key for key, value in _of("s", fields) if int(value) != epoch),
            children={key: _children(value) for key, value in _of("k", fields)},
            replies={key: _reply_from_json(value) for key, value in _of("r", fields)},
            outputs={key: _output_from_json(value) for key, value in _of("o", fields)},
        )


def pending_calls(turn: Turn | TurnSummary, fields: Mapping[str, bytes]) -> list[PendingCall]:
    """The calls that wait for decisions or for the client.

    Raises:
        UnreadableRecord: No release wrote one of them.
    """
    with reading("a turn's waiting call", remedy=_REMEDY):
        return _pending(turn, fields)


def _pending(turn: Turn | TurnSummary, fields: Mapping[str, bytes]) -> list[PendingCall]:
    # A hash has no order.
    asked = [
        (orjson.loads(value), call_id, kind)
        for mark, kind in (("q", CallKind.APPROVAL), ("f", CallKind.CLIENT))
        for call_id, value in _of(mark, fields)
        if f"{_ANSWERS[kind]}:{call_id}" not in fields
    ]
    asked.sort(key=lambda found: found[0]["number"])
    return [
        PendingCall(
            turn_id=turn.turn_id,
            conversation_id=turn.conversation_id,
            agent=turn.agent,
            call_id=call_id,
            tool=question["tool"],
            arguments=question["arguments"],
            expires_at=int(fields[f"x:{call_id}"]) / 1000 if f"x:{call_id}" in fields else None,
            default=Verdict(question.get("default", Verdict.REJECTED)),
            schema=question.get("schema"),
            kind=kind,
        )
        for question, call_id, kind in asked
    ]


def children_of(fields: Mapping[str, bytes]) -> list[tuple[ChildTurn, bool]]:
    """The children, each with whether the turn still waits for it.

    Raises:
        UnreadableRecord: No release wrote one of them.
    """
    with reading("a turn's waiting call", remedy=_REMEDY):
        found = [child for _, value in _of("k", fields) for child in _children(value)]
    found.sort(key=lambda child: child.number)
    return [(child, f"w:{child.turn_id}" in fields) for child in found]


def _children(value: bytes) -> tuple[ChildTurn, ...]:
    return tuple(_child(child) for child in orjson.loads(value))


def _child(data: dict[str, Any]) -> ChildTurn:
    budget = data.get("budget")
    return record_of(ChildTurn, {**data, "budget": record_of(Limits, budget) if budget else None})


def _of(kind: str, fields: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    prefix = f"{kind}:"
    return [(key[2:], value) for key, value in fields.items() if key.startswith(prefix)]


def held_event(held: HeldCalls) -> dict[str, Any]:
    """Data of the event of a turn that waits for decisions, its client or children.

    Old releases read only the reason, and the calls of decisions.
    """
    if held.client:
        client = [{"call": call.call_id, "tool": call.tool} for call in held.client]
        asked = [{"call": asked.call_id, "tool": asked.tool} for asked in held.questions]
        more = {"approvals": asked} if asked else {}
        return {"reason": "client", "calls": client, **more, "responses": held.responses}
    if not held.questions:
        turns = [{"agent": child.agent, "turn": child.turn_id} for child in held.children]
        return {"reason": "children", "turns": turns}
    calls = [{"call": question.call_id, "tool": question.tool} for question in held.questions]
    return {"reason": "approval", "calls": calls, "responses": held.responses}


def decided_event(call_id: str, decision: Decision) -> dict[str, Any]:
    """Data of the event of a decision."""
    return {"call": call_id, "verdict": decision.verdict.value}


def answered_event(call_id: str, output: ClientOutput) -> dict[str, Any]:
    """Data of the event of a client's output."""
    return {"call": call_id, "failed": output.is_error}


def replied_event(reply: ChildReply) -> dict[str, Any]:
    """Data of the event of a child's end."""
    return {"turn": reply.turn_id, "status": reply.status.value}
