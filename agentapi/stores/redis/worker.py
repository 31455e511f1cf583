"""The workers' part of the store, in Redis: each write carries the lease's fence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
import redis
from typing_extensions import override

from agentapi.conversation.messages import UserMessage, dumps
from agentapi.conversation.window import BYTES_PER_TOKEN, Window
from agentapi.ids import partition_of
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, turn_keys, waiting_key
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.answers import (
    Claim,
    Ending,
    NewEvent,
    Recorded,
    Refusal,
    Renewal,
    Unreadable,
)
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.protocol import WorkerStore
from agentapi.stores.redis.cancels import CancelReader, leave_word
from agentapi.stores.redis.claim_codec import ClaimCall
from agentapi.stores.redis.codec import (
    besides_usage,
    ending_event,
    outcome_to_json,
    parked_event,
    step_event,
    usage_to,
    waits_to_json,
)
from agentapi.stores.redis.part import RedisPart, refused
from agentapi.stores.redis.values import all_keys, milliseconds, wakeup_of
from agentapi.stores.refusals import behind, unexpected
from agentapi.turns import Step, UserStep, WaitKind, step_from_json, step_to_json
from agentapi.turns.marks import last_mark, mark_json, step_mark

WAITING_MEMORY: Final = 3600.0
"""Seconds past its end for which a turn's wait for a provider is remembered. A turn whose worker
dies is parked again within that time."""


class RedisWorker(RedisPart, WorkerStore):
    """The `WorkerStore` in Redis."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        super().__init__(settings, client, scripts)
        self._cancels = CancelReader(settings)

    @override
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

    @override
    def record(self, lease: Lease, index: int, step: Step) -> Recorded:
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
                mark_json(*step_mark(step)),
            ],
        )
        match reply:
            case [b"recorded", cancel, steered]:
                return Recorded(cancel=bool(cancel), steered=bool(steered))
            case [b"fenced"]:
                raise refused("record", lease)
            case [b"gap", length]:
                raise behind(lease, index, length)
            case _:
                raise unexpected("record", reply)

    @override
    def steer(self, lease: Lease, index: int) -> list[UserStep]:
        turn, keys = turn_keys(lease.turn_id), conversation_keys(lease.conversation_id)
        text = UserMessage(content="$input", turn_id=lease.turn_id)
        reply = self._call(
            "steer",
            [turn.turn, keys.lease, turn.journal, turn.events, keys.inbox],
            [
                *(lease.turn_id, lease.fence, index, keys.turns),
                step_to_json(UserStep(message=text)),
            ],
        )
        match reply:
            case [b"steered", steps]:
                read = map(step_from_json, steps)
                return [step for step in read if isinstance(step, UserStep)]
            case [b"fenced"]:
                raise refused("steer", lease)
            case [b"gap", length]:
                raise behind(lease, index, length)
            case _:
                raise unexpected("steer", reply)

    @override
    def hear_cancel(self, process: str, timeout: float) -> bool:
        return self._cancels.wait(process, timeout)

    @override
    def tell_cancel(self, process: str) -> None:
        with translate_errors(self._settings.redis_url):
            leave_word(self._client, process)

    @override
    def commit(self, lease: Lease, ending: Ending) -> Wakeup | None:
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
                int(ending.refused),
                "" if ending.contexts is None else orjson.dumps(dict(ending.contexts)),
                "" if ending.last_step is None else mark_json(*last_mark(ending.last_step)),
                usage_to(ending.usage),
                besides_usage(ending),
                *map(dumps, ending.messages),
            ],
        )
        if reply[0] == b"fenced":
            raise refused("commit", lease)
        return wakeup_of(lease.conversation_id, *reply[1:])

    @override
    def release(self, lease: Lease, delay: float = 0) -> None:
        keys = conversation_keys(lease.conversation_id)
        reply = self._call(
            "release",
            [turn_keys(lease.turn_id).turn, keys.lease, keys.due],
            [lease.turn_id, lease.conversation_id, lease.fence, milliseconds(delay)],
        )
        if reply[0] == b"fenced":
            raise refused("release", lease)

    @override
    def park(
        self,
        lease: Lease,
        delay: float,
        *,
        failures: int,
        steps: int,
        reason: str,
        names: Sequence[str] = (),
        lasted: float | None = None,
    ) -> bool:
        keys, turn = conversation_keys(lease.conversation_id), turn_keys(lease.turn_id)
        failing = failures > 0 and reason == WaitKind.PROVIDER
        partition = partition_of(lease.conversation_id)
        reply = self._call(
            "park",
            [
                *(turn.turn, keys.lease, keys.due, turn.events),
                *(waiting_key(partition, name) for name in names if failing),
            ],
            [
                lease.turn_id,
                lease.conversation_id,
                lease.fence,
                milliseconds(delay),
                failures,
                steps,
                orjson.dumps(parked_event(delay, reason, names, failures)),
                waits_to_json(reason, names),
                "" if lasted is None else milliseconds(lasted),
                milliseconds(delay + WAITING_MEMORY),
            ],
        )
        if reply[0] == b"fenced":
            raise refused("park", lease)
        return bool(reply[0] == b"parked")

    @override
    def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        ttl = milliseconds(self._settings.lease_ttl)
        calls: list[Call] = []
        for lease in leases:
            keys = conversation_keys(lease.conversation_id)
            named = [turn_keys(lease.turn_id).turn, keys.lease, keys.due]
            calls.append((named, [lease.turn_id, lease.conversation_id, lease.fence, ttl]))
        return [
            # No worker can take a lease on an unavailable shard.
            Renewal(held=True, cancel=False)
            if reply is None
            else Renewal(held=reply[0] == b"renewed", cancel=len(reply) > 1 and bool(reply[1]))
            for reply in self._each("renew", calls)
        ]

    @override
    def emit(self, batches: Sequence[tuple[Lease, int, Sequence[NewEvent]]]) -> list[int]:
        calls: list[Call] = []
        for lease, number, events in batches:
            turn = turn_keys(lease.turn_id)
            args: list[Any] = [lease.turn_id, lease.fence, number]
            for event in events:
                args += [event.type, orjson.dumps(dict(event.data))]
            keys = [turn.turn, conversation_keys(lease.conversation_id).lease, turn.events]
            calls.append((keys, args))
        answers = self._each("emit", calls)
        return [number for number, answer in enumerate(answers) if answer is None]
