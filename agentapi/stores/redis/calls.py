"""Calls that wait, in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, cast

import orjson
import redis
from typing_extensions import override

from agentapi.ids import partition_of_turn
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import (
    conversation_keys,
    due_key,
    due_key_of_turn,
    turn_keys,
    turns_prefix,
)
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings
from agentapi.stores.calls import CallStore, Errand, Suspended
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.redis.calls_codec import (
    answered_event,
    call_book,
    children_of,
    decided_event,
    decision_from_json,
    decision_to_json,
    held_event,
    held_to_json,
    output_to_json,
    pending_calls,
    replied_event,
    reply_to_json,
)
from agentapi.stores.redis.codec import continuation_to_fields, pairs, turn_from_hash
from agentapi.stores.redis.due import member_of
from agentapi.stores.redis.part import refused
from agentapi.stores.redis.values import ENDED
from agentapi.stores.refusals import (
    answered_otherwise,
    decided_otherwise,
    no_call,
    no_turn,
    unexpected,
)
from agentapi.turns import (
    Answers,
    CallBook,
    ChildReply,
    ChildTurn,
    Decision,
    HeldCalls,
    PendingCall,
)

LOOK_AGAIN: Final = 3600.0
"""Seconds after which a turn that waits for children is checked, in case a reply was lost."""


class RedisCalls(CallStore):
    """The `CallStore` in Redis. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts
        self._grace = round(settings.dispatch_grace * 1000)

    @override
    def suspend(self, lease: Lease, held: HeldCalls) -> Suspended | CallBook:
        keys, turn = conversation_keys(lease.conversation_id), turn_keys(lease.turn_id)
        reply = self._call(
            "suspend",
            [turn.turn, keys.lease, keys.due, turn.events, turn.calls],
            [
                lease.turn_id,
                lease.conversation_id,
                lease.fence,
                held_to_json(held),
                orjson.dumps(held_event(held)),
                self._grace,
                round(LOOK_AGAIN * 1000),
            ],
        )
        match reply:
            case [b"parked"]:
                return Suspended.PARKED
            case [b"ready", fields]:
                return call_book(pairs(fields), lease.epoch)
            case [b"cancel"]:
                return Suspended.CANCELLED
            case [b"fenced"]:
                raise refused("suspend", lease)
            case _:
                raise unexpected("suspend", reply)

    @override
    def decide(self, turn_id: str, call_id: str, decision: Decision) -> Wakeup | None:
        turn = turn_keys(turn_id)
        reply = self._call(
            "decide",
            [turn.turn, turn.calls, due_key_of_turn(turn_id), turn.events],
            [
                call_id,
                decision_to_json(decision),
                orjson.dumps(decided_event(call_id, decision)),
                self._grace,
            ],
        )
        match reply:
            case [b"decided", conversation, agent]:
                return _wakeup(turn_id, conversation, agent)
            case [b"other", other]:
                raise decided_otherwise(turn_id, call_id, decision_from_json(other))
            case [b"unknown"]:
                raise no_call(turn_id, call_id)
            case [b"ended", status]:
                raise no_call(turn_id, call_id, status.decode())
            case [b"missing"]:
                raise no_turn(turn_id)
            case _:
                raise unexpected("decide", reply)

    @override
    def answer(self, turn_id: str, answers: Answers) -> Wakeup | None:
        turn = turn_keys(turn_id)
        given: list[Any] = []
        for call_id, output in answers.outputs.items():
            event = orjson.dumps(answered_event(call_id, output))
            given += [call_id, "o", output_to_json(output), event]
        for call_id, decision in answers.decisions.items():
            event = orjson.dumps(decided_event(call_id, decision))
            given += [call_id, "a", decision_to_json(decision), event]
        changed = continuation_to_fields(answers.continuation) if answers.continuation else {}
        reply = self._call(
            "answer",
            [turn.turn, turn.calls, due_key_of_turn(turn_id), turn.events],
            [self._grace, len(given) // 4, *given, *chain.from_iterable(changed.items())],
        )
        match reply:
            case [b"answered", conversation, agent]:
                return _wakeup(turn_id, conversation, agent)
            case [b"other", call_id, other] if call_id.decode() in answers.decisions:
                raise decided_otherwise(turn_id, call_id.decode(), decision_from_json(other))
            case [b"other", call_id, _]:
                raise answered_otherwise(turn_id, call_id.decode())
            case [b"unknown", call_id]:
                raise no_call(turn_id, call_id.decode())
            case [b"ended", status]:
                raise no_call(turn_id, next(iter(answers.outputs), ""), status.decode())
            case [b"missing"]:
                raise no_turn(turn_id)
            case _:
                raise unexpected("answer", reply)

    @override
    def pending(self, turn_id: str) -> list[PendingCall]:
        turn, calls = self._read(turn_id)
        if "into" in turn:
            turn_id = turn["into"].decode()
            turn, calls = self._read(turn_id)
        if not turn:
            # If it is in the archive, it comes back.
            prefix = turns_prefix(partition_of_turn(turn_id))
            self._call("read", [turn_keys(turn_id).turn], [turn_id, prefix])
            turn, calls = self._read(turn_id)
        if not turn:
            raise no_turn(turn_id)
        if turn.get("status") in ENDED:
            return []
        return pending_calls(turn_from_hash(turn_id, turn), calls)

    @override
    def children(self, turn_id: str) -> list[tuple[ChildTurn, bool]]:
        return children_of(self._read(turn_id)[1])

    @override
    def deliver(self, parent_id: str, reply: ChildReply) -> Wakeup | None:
        turn = turn_keys(parent_id)
        answer = self._call(
            "deliver",
            [turn.turn, turn.calls, due_key_of_turn(parent_id), turn.events],
            [
                reply.turn_id,
                reply_to_json(reply),
                orjson.dumps(replied_event(reply)),
                self._grace,
            ],
        )
        return _wakeup(parent_id, *answer[1:])

    @override
    def settle(self, errands: Sequence[Errand]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for errand in errands:
            pipeline.zrem(due_key(errand.partition), member_of(errand))
        with translate_errors(self._settings.redis_url):
            pipeline.execute()

    def _read(self, turn_id: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
        turn = turn_keys(turn_id)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(turn.turn)
        pipeline.hgetall(turn.calls)
        with translate_errors(self._settings.redis_url):
            hashes = cast("list[dict[bytes, bytes]]", pipeline.execute())
        first, second = ({name.decode(): v for name, v in fields.items()} for fields in hashes)
        return first, second

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            return self._scripts.call(name, keys, args)


def _wakeup(turn_id: str, conversation: bytes, agent: bytes) -> Wakeup | None:
    if not conversation:
        return None
    return Wakeup(conversation_id=conversation.decode(), turn_id=turn_id, agent=agent.decode())
