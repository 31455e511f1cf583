"""Turns in Redis: one Lua script a transition, one round trip a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import orjson
import redis

from agentapi.conversation.messages import attachment_to_dict, dumps
from agentapi.conversation.window import BYTES_PER_TOKEN, Window
from agentapi.decoding.records import PROTOCOL
from agentapi.redis.connection import connect, translate_errors
from agentapi.redis.keys import (
    PROTOCOL_KEY,
    conversation_keys,
    turn_keys,
)
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.answers import (
    Accepted,
    Claim,
    Ending,
    NewEvent,
    Refusal,
    Refused,
    Renewal,
    Unreadable,
)
from agentapi.stores.calls import CallStore
from agentapi.stores.conversations import ConversationStore
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.redis.calls import RedisCalls
from agentapi.stores.redis.claim_codec import ClaimCall
from agentapi.stores.redis.codec import (
    ending_event,
    outcome_to_json,
    parked_event,
    step_event,
    turn_from_hash,
)
from agentapi.stores.redis.conversations import RedisConversations
from agentapi.stores.redis.events import EventReader
from agentapi.stores.redis.scripts import SCRIPTS
from agentapi.stores.redis.sweep import RedisSweep
from agentapi.stores.redis.values import all_keys, milliseconds, wakeup_of
from agentapi.stores.refusals import (
    behind,
    busy,
    lost,
    newer_fleet,
    no_turn,
    other_tenant,
    rejected,
    unexpected,
)
from agentapi.turns import Event, NewTurn, Step, Turn, step_to_json


class RedisTurnStore(RedisSweep):
    """The `TurnStore` of workers and producers. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis | None = None,
        *,
        keep_connections: bool = False,
    ) -> None:
        """Make one.

        Args:
            settings: Where Redis is, and the protocol's times and limits.
            client: Of its own when not given.
            keep_connections: For a process whose threads stay; see `Scripts`.
        """
        client = client or connect(settings)
        scripts = Scripts(client, SCRIPTS, keep_connections=keep_connections)
        super().__init__(settings, client, scripts)
        self.calls: CallStore = RedisCalls(settings, client, scripts)
        self.conversations: ConversationStore = RedisConversations(settings, client, scripts)
        self._reader = EventReader(settings, client)

    def enqueue(self, turns: Sequence[NewTurn]) -> list[Accepted | Refused]:
        """See `TurnStore.enqueue`."""
        with translate_errors(self._settings.redis_url):
            replies = self._scripts.call_many("enqueue", [self._enqueueing(t) for t in turns])
        return [self._accepted(turn, reply) for turn, reply in zip(turns, replies, strict=True)]

    def _enqueueing(self, turn: NewTurn) -> Call:
        keys = conversation_keys(turn.conversation_id)
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
                turn.conversation_id,
                turn.agent,
                turn.input,
                turn.user_id or "",
                turn.tenant_id or "",
                orjson.dumps(dict(turn.metadata)),
                int(turn.stream),
                turn.on_abort,
                turn.on_busy,
                self._settings.inbox_limit,
                self._grace,
                milliseconds(turn.idle_time or self._settings.memory_ttl or 0),
                keys.turns,
                *self._retentions,
                self._settings.max_message_bytes,
                turn.parent_id or "",
                turn.depth,
                milliseconds(turn.timeout or 0),
                milliseconds(turn.deadline_at or 0),
                turn.budget.to_json() if turn.budget else "",
                orjson.dumps([attachment_to_dict(a) for a in turn.attachments])
                if turn.attachments
                else "",
                PROTOCOL,
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
            case [how, turn_id, *wake]:
                return Accepted(
                    turn_id=turn_id.decode(),
                    wakeup=wakeup_of(turn.conversation_id, *wake),
                    created=how == b"accepted",
                )
            case _:
                raise unexpected("enqueue", reply)

    def claim(
        self,
        conversation_id: str,
        turn_id: str,
        *,
        owner: str,
        token: str,
        window: Window,
        isolated: bool = False,
    ) -> Claim | Unreadable | Refusal:
        """See `TurnStore.claim`."""
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        max_bytes = -1 if window.tokens is None else window.tokens * BYTES_PER_TOKEN
        reply = self._call(
            "claim",
            [*all_keys(keys, turn), keys.claimed],
            [
                turn_id,
                conversation_id,
                owner,
                token,
                milliseconds(self._settings.lease_ttl),
                -1 if window.messages is None else window.messages,
                max_bytes,
                int(isolated),
                self._settings.max_attempts,
                self._grace,
            ],
        )
        call = ClaimCall(conversation_id=conversation_id, turn_id=turn_id, token=token)
        return call.answer(reply)

    def record(self, lease: Lease, index: int, step: Step) -> bool:
        """See `TurnStore.record`."""
        turn = turn_keys(lease.turn_id)
        reply = self._call(
            "record",
            [turn.turn, conversation_keys(lease.conversation_id).lease, turn.journal, turn.events],
            [
                lease.turn_id,
                lease.fence,
                index,
                step_to_json(step),
                orjson.dumps(step_event(index, step)),
            ],
        )
        match reply:
            case [b"recorded", cancel]:
                return bool(cancel)
            case [b"fenced"]:
                raise lost(lease)
            case [b"gap", length]:
                raise behind(lease, index, length)
            case _:
                raise unexpected("record", reply)

    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
        """See `TurnStore.commit`."""
        keys, turn = conversation_keys(lease.conversation_id), turn_keys(lease.turn_id)
        reply = self._call(
            "commit",
            all_keys(keys, turn),
            [
                lease.turn_id,
                lease.conversation_id,
                lease.fence,
                lease.generation,
                ending.status,
                outcome_to_json(ending),
                ending.steps,
                orjson.dumps(ending_event(ending)),
                self._grace,
                *self._retentions,
                milliseconds(self._settings.memory_ttl or 0),
                keys.turns,
                ending.answered_by if ending.handed_over else "",
                ending.spent.steps,
                ending.spent.tokens,
                repr(ending.spent.cost),
                "" if ending.calibration is None else repr(ending.calibration),
                *map(dumps, ending.messages),
            ],
        )
        if reply[0] == b"fenced":
            raise lost(lease)
        return wakeup_of(lease.conversation_id, *reply[1:])

    def release(self, lease: Lease, delay: float = 0) -> None:
        """See `TurnStore.release`."""
        keys = conversation_keys(lease.conversation_id)
        reply = self._call(
            "release",
            [turn_keys(lease.turn_id).turn, keys.lease, keys.due],
            [lease.turn_id, lease.conversation_id, lease.fence, milliseconds(delay)],
        )
        if reply[0] == b"fenced":
            raise lost(lease)

    def park(self, lease: Lease, delay: float, *, failures: int, steps: int, reason: str) -> bool:
        """See `TurnStore.park`."""
        keys, turn = conversation_keys(lease.conversation_id), turn_keys(lease.turn_id)
        reply = self._call(
            "park",
            [turn.turn, keys.lease, keys.due, turn.events],
            [
                lease.turn_id,
                lease.conversation_id,
                lease.fence,
                milliseconds(delay),
                failures,
                steps,
                orjson.dumps(parked_event(delay, reason)),
            ],
        )
        if reply[0] == b"fenced":
            raise lost(lease)
        return bool(reply[0] == b"parked")

    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """See `TurnStore.renew`."""
        ttl = milliseconds(self._settings.lease_ttl)
        calls: list[Call] = []
        for lease in leases:
            keys = conversation_keys(lease.conversation_id)
            named = [turn_keys(lease.turn_id).turn, keys.lease, keys.due]
            calls.append((named, [lease.turn_id, lease.conversation_id, lease.fence, ttl]))
        with translate_errors(self._settings.redis_url):
            replies = self._scripts.call_many("renew", calls)
        return [
            Renewal(held=reply[0] == b"renewed", cancel=len(reply) > 1 and bool(reply[1]))
            for reply in replies
        ]

    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> None:
        """See `TurnStore.emit`."""
        calls: list[Call] = []
        for lease, number, events in batches:
            turn = turn_keys(lease.turn_id)
            args: list[Any] = [lease.turn_id, lease.fence, number]
            for event in events:
                args += [event.type, orjson.dumps(dict(event.data))]
            keys = [turn.turn, conversation_keys(lease.conversation_id).lease, turn.events]
            calls.append((keys, args))
        with translate_errors(self._settings.redis_url):
            self._scripts.call_many("emit", calls)

    def turn(self, turn_id: str) -> Turn:
        """See `TurnStore.turn`."""
        fields = self._fields_of(turn_id)
        if b"into" in fields:
            turn_id = fields[b"into"].decode()
            fields = self._fields_of(turn_id)
        return turn_from_hash(turn_id, {name.decode(): value for name, value in fields.items()})

    def _fields_of(self, turn_id: str) -> dict[bytes, bytes]:
        with translate_errors(self._settings.redis_url):
            fields = cast("dict[bytes, bytes]", self._client.hgetall(turn_keys(turn_id).turn))
        if not fields:
            raise no_turn(turn_id)
        return fields

    def events(
        self, cursors: Mapping[str, int], timeout: float, count: int | None = None
    ) -> dict[str, list[Event]]:
        """See `TurnStore.events`."""
        with translate_errors(self._settings.redis_url):
            return self._reader.read(cursors, timeout, count)

    def interrupt(self) -> None:
        """See `TurnStore.interrupt`."""
        with translate_errors(self._settings.redis_url):
            self._reader.interrupt()

    def check_protocol(self) -> None:
        """See `TurnStore.check_protocol`."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(PROTOCOL_KEY, PROTOCOL, nx=True)
        pipeline.get(PROTOCOL_KEY)
        with translate_errors(self._settings.redis_url):
            _, fleet = pipeline.execute()
        if not fleet.isdigit() or int(fleet) > PROTOCOL:
            raise newer_fleet(fleet)

    def ping(self) -> None:
        """See `TurnStore.ping`."""
        with translate_errors(self._settings.redis_url):
            self._client.ping()

    def close(self) -> None:
        """See `TurnStore.close`."""
        self._reader.close()
        self._client.close()
        self._client.connection_pool.disconnect()
