"""The producers' part of the store, in Redis: enqueue, follow, cancel and retry turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import redis
from typing_extensions import override

from agentapi.ids import PARTITIONS, partition_of_turn
from agentapi.metrics import recorder
from agentapi.metrics.catalog import TURNS_ACCEPTED, TURNS_ENDED, UNKNOWN
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, turn_keys, turns_prefix
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.answers import Accepted, Cancellation, CancelOutcome, Refused, TurnPast
from agentapi.stores.lease import Wakeup
from agentapi.stores.protocol import ProducerStore
from agentapi.stores.redis.calls_codec import pending_calls
from agentapi.stores.redis.cancels import leave_word
from agentapi.stores.redis.codec import (
    pairs,
    place_from,
    spec_to_fields,
    texts,
    turn_from_hash,
)
from agentapi.stores.redis.events import EventReader
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.values import all_keys, milliseconds, wakeup_of
from agentapi.stores.refusals import (
    busy,
    no_turn,
    not_failed,
    other_tenant,
    rejected,
    unexpected,
)
from agentapi.turns import Event, NewTurn, Step, Turn, step_from_json
from agentapi.turns.marks import marks_of


class RedisProducer(RedisPart, ProducerStore):
    """The `ProducerStore` in Redis."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        super().__init__(settings, client, scripts)
        self._reader = EventReader(settings, client)
        self._list_bounds = (
            math.ceil(settings.list_limit / PARTITIONS),
            math.ceil(settings.ends_limit / PARTITIONS),
            milliseconds(settings.ends_retention),
            math.ceil(max(settings.turn_limit, settings.list_limit) / PARTITIONS)
            if settings.turn_limit
            else 0,
        )

    @override
    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        with translate_errors(self._settings.redis_url):
            replies = self._scripts.call_many("enqueue", [self._enqueueing(t) for t in turns])
            self._tell([reply[4] for reply in replies if len(reply) > 4 and reply[4]])
        answers = [self._accepted(turn, reply) for turn, reply in zip(turns, replies, strict=True)]
        for turn, answer in zip(turns, answers, strict=True):
            if isinstance(answer, Accepted) and answer.created:
                recorder().count(TURNS_ACCEPTED, turn.agent)
        return answers

    def _enqueueing(self, turn: NewTurn) -> Call:
        keys = conversation_keys(turn.conversation_id)
        fields = spec_to_fields(turn)
        idle = milliseconds(turn.idle_time or self._settings.memory_ttl or 0)
        if idle:
            fields["idle"] = idle
        if self._settings.compact_turns and turn.stored:
            fields["compact"] = 1
        if not turn.stored:
            fields["unstored"] = milliseconds(self._settings.unstored_retention)
        return (
            [
                turn_keys(turn.turn_id).turn,
                keys.inbox,
                keys.meta,
                keys.messages,
                keys.due,
                keys.lease,
                keys.blobs,
            ],
            [
                turn.turn_id,
                turn.on_busy,
                self._settings.inbox_limit,
                self._grace,
                keys.turns,
                *self._retentions,
                self._settings.max_message_bytes,
                milliseconds(turn.timeout or 0),
                milliseconds(turn.deadline_at or 0),
                *self._list_bounds,
                len(fields),
                *chain.from_iterable(fields.items()),
                *chain.from_iterable(turn.blobs.items()),
            ],
        )

    def _accepted(self, turn: NewTurn, reply: list[Any]) -> Accepted | Refused:
        match reply:
            case [b"busy", length]:
                return busy(turn.conversation_id, length)
            case [b"tenant"]:
                return other_tenant(turn.conversation_id)
            case [b"rejected", length]:
                return rejected(turn.conversation_id, length)
            case [how, turn_id, head, agent, _]:
                return Accepted(
                    turn_id=turn_id.decode(),
                    wakeup=wakeup_of(turn.conversation_id, head, agent),
                    created=how == b"accepted",
                )
            case _:
                raise unexpected("enqueue", reply)

    @override
    def cancel(self, turn_id: str) -> Cancellation:
        turn_id, conversation_id = self._joined(turn_id)
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        reply = self._call(
            "cancel",
            all_keys(keys, turn),
            [
                turn_id,
                conversation_id,
                self._grace,
                *self._retentions,
                keys.turns,
            ],
        )
        match reply:
            case [b"missing"]:
                raise no_turn(turn_id)
            case [done, head, agent, process]:
                outcome = CancelOutcome(done.decode())
                if outcome is CancelOutcome.CANCELLED:
                    recorder().count(TURNS_ENDED, UNKNOWN, outcome.value, "not_running")
                with translate_errors(self._settings.redis_url):
                    self._tell([process] if process else [])
                return Cancellation(
                    outcome=outcome,
                    wakeup=wakeup_of(conversation_id, head, agent),
                )
            case [outcome]:
                return Cancellation(outcome=CancelOutcome(outcome.decode()))
            case _:
                raise unexpected("cancel", reply)

    def _tell(self, processes: Sequence[bytes]) -> None:
        """Notify worker processes that turns of theirs are cancelled.

        If a notification is lost, they learn of it with their next heartbeat.
        """
        for process in processes:
            leave_word(self._client, process.decode())

    @override
    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        turn_id, conversation_id = self._joined(turn_id)
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        reply = self._call(
            "retry",
            [
                turn.turn,
                keys.inbox,
                keys.meta,
                keys.messages,
                keys.due,
                turn.journal,
                turn.events,
                turn.calls,
            ],
            [
                turn_id,
                conversation_id,
                operation,
                self._settings.inbox_limit,
                self._grace,
                milliseconds(self._settings.memory_ttl or 0),
            ],
        )
        match reply:
            case [b"queued", head, agent]:
                return wakeup_of(conversation_id, turn_id.encode(), agent) if head else None
            case [b"refused", status]:
                raise not_failed(turn_id, status.decode())
            case [b"busy", length]:
                raise busy(conversation_id, length)
            case [b"tenant"]:
                raise other_tenant(conversation_id)
            case [b"missing"]:
                raise no_turn(turn_id)
            case _:
                raise unexpected("retry", reply)

    @override
    def turn(self, turn_id: str) -> Turn:
        return turn_from_hash(*self._whole(turn_id))

    def _whole(self, turn_id: str) -> tuple[str, dict[str, bytes]]:
        """A turn's id and fields, with its messages; for a merged message, those of the turn that
        it joined."""
        prefix = turns_prefix(partition_of_turn(turn_id))
        found, fields = self._call("read", [turn_keys(turn_id).turn], [turn_id, prefix])
        if not fields:
            raise no_turn(found.decode())
        return found.decode(), pairs(fields)

    @override
    def steps(self, turn_id: str) -> list[Step]:
        with translate_errors(self._settings.redis_url):
            found = cast("list[bytes]", self._client.lrange(turn_keys(turn_id).journal, 0, -1))
        return [step_from_json(step) for step in found]

    @override
    def past(self, turn_id: str) -> TurnPast:
        turn_id, turn = self._whole(turn_id)
        keys = turn_keys(turn_id)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.lrange(keys.journal, 0, -1)
        pipeline.hgetall(keys.calls)
        pipeline.time()
        with translate_errors(self._settings.redis_url):
            steps, calls, clock = pipeline.execute()
        found = turn_from_hash(turn_id, turn)
        return TurnPast(
            turn=found,
            marks=marks_of(turn.get("log", b""), found.created_at),
            steps=[step_from_json(step) for step in steps],
            pending=[] if found.status.ended else pending_calls(found, texts(calls)),
            now=clock[0] + clock[1] / 1_000_000,
            place=place_from(turn.get("place")),
        )

    @override
    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        with translate_errors(self._settings.redis_url):
            return self._reader.read(cursors, timeout, count)

    @override
    def interrupt(self) -> None:
        with translate_errors(self._settings.redis_url):
            self._reader.interrupt()
