"""Finds turns that no worker continues, and wakes them, in Redis."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
import redis
from typing_extensions import override

from agentapi.errors import TurnNotFound
from agentapi.ids import PARTITIONS, partition_of
from agentapi.metrics import recorder
from agentapi.metrics.catalog import TURNS_ENDED, UNKNOWN
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import (
    ELECTION_KEY,
    QUEUES_KEY,
    SHARES_KEY,
    SWEPT_KEY,
    claimed_key,
    conversation_keys,
    conversations_prefix,
    due_key,
    turn_keys,
    turns_prefix,
    waiting_key,
)
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.answers import (
    LONGEST_GRACE,
    LONGEST_IN_LINE,
    LONGEST_ROUSE,
    NEW_FLEET,
    ROUSED_A_SECOND,
    Election,
    Ending,
    Perished,
)
from agentapi.stores.calls import Errand
from agentapi.stores.groups import SWEEP_GROUPS
from agentapi.stores.lease import Wakeup
from agentapi.stores.protocol import SweepStore
from agentapi.stores.redis.codec import ending_event, outcome_to_json
from agentapi.stores.redis.due import DueReader
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.values import all_keys, milliseconds, wakeup_of
from agentapi.stores.refusals import missed_deadline, unexpected
from agentapi.turns import TurnError, TurnStatus

MAX_REDISPATCHED: Final = 100
"""Maximum overdue conversations that one run of a script checks. Redis is blocked meanwhile."""


class RedisSweep(RedisPart, SweepStore):
    """The `SweepStore` in Redis."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        super().__init__(settings, client, scripts)
        self._due = DueReader()

    @property
    @override
    def sharded(self) -> bool:
        return self._scripts.on_cluster

    @override
    def expire(self, turn_id: str) -> Wakeup | None:
        try:
            turn_id, conversation_id = self._joined(turn_id)
        except TurnNotFound:
            return None
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        error = missed_deadline()
        ending = Ending(
            status=TurnStatus.FAILED, error=TurnError(code=error.code, message=str(error))
        )
        reply = self._call(
            "expire",
            all_keys(keys, turn),
            [
                turn_id,
                conversation_id,
                self._grace,
                *self._retentions,
                keys.turns,
                outcome_to_json(ending),
                orjson.dumps(ending_event(ending)),
            ],
        )
        match reply:
            case [b"expired", *wake]:
                recorder().count(TURNS_ENDED, UNKNOWN, ending.status.value, error.code)
                return wakeup_of(conversation_id, *wake)
            case [b"left"]:
                return None
            case _:
                raise unexpected("expire", reply)

    @override
    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        keys = conversation_keys(conversation_id)
        reply = self._call(
            "perish",
            [turn_keys(turn_id).turn, keys.lease, keys.due],
            [turn_id, conversation_id, process],
        )
        match reply:
            case [b"perished", deaths, agent]:
                wakeup = Wakeup(
                    conversation_id=conversation_id, turn_id=turn_id, agent=agent.decode()
                )
                return Perished(deaths=deaths, wakeup=wakeup)
            case [b"gone"]:
                return None
            case _:
                raise unexpected("perish", reply)

    @override
    def orphan(self, process: str) -> list[str]:
        calls: list[Call] = [
            ([due_key(partition)], [process, conversations_prefix(partition)])
            for partition in range(PARTITIONS)
        ]
        # Leases on an unavailable shard expire by themselves.
        freed = self._each("orphan", calls)
        return [conversation.decode() for found in freed for conversation in found or ()]

    @override
    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        args = [candidate, milliseconds(ttl), int(swept), SWEEP_GROUPS]
        # A shorter wait than for a single call, so that groups on other shards are not delayed.
        [(age, *groups)] = self._each("elect", [([ELECTION_KEY, SHARES_KEY, SWEPT_KEY], args)])
        return Election(groups=frozenset(groups), since_sweep=None if age < 0 else age / 1000)

    @override
    def since_sweep(self) -> float | None:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.get(SWEPT_KEY)
        pipeline.time()
        with translate_errors(self._settings.redis_url):
            swept, (seconds, micros) = pipeline.execute()
        if swept is None:
            return None
        return float(max(0.0, seconds + micros / 1e6 - int(swept) / 1000))

    @override
    def agree(self, queues: int) -> int:
        agreed = self._call("agree", [QUEUES_KEY, ELECTION_KEY], [queues, milliseconds(NEW_FLEET)])
        return int(agreed)

    @override
    def resign(self, candidate: str) -> None:
        self._call("resign", [ELECTION_KEY, SHARES_KEY], [candidate, SWEEP_GROUPS])

    @override
    def overdue(
        self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)
    ) -> list[str | Errand]:
        indexes = [due_key(p) for p in partitions]
        if self.sharded:
            late = self._each("overdue", [([index], [limit]) for index in indexes])
            return self._due.read(
                (partition, member)
                for partition, found in zip(partitions, late, strict=True)
                for member in (found or ())[1::2]
            )
        # An empty index has no key, so an idle fleet costs one command.
        with translate_errors(self._settings.redis_url):
            if not self._client.exists(*indexes):
                return []
        found = self._call("overdue", indexes, [limit])
        members = zip(found[::2], found[1::2], strict=True)
        return self._due.read((partitions[number - 1], member) for number, member in members)

    @override
    def claimed(self) -> dict[int, float]:
        keys = [claimed_key(p) for p in range(PARTITIONS)]
        with translate_errors(self._settings.redis_url):
            times: Any = self._claimed_each(keys) if self.sharded else self._client.mget(keys)
        return {p: int(time) / 1000 for p, time in enumerate(times) if time and time.isdigit()}

    def _claimed_each(self, keys: Sequence[str]) -> list[bytes | None]:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        found = pipeline.execute(raise_on_error=False)
        return [time if isinstance(time, bytes) else None for time in found]

    @override
    def redispatch(
        self, conversation_ids: Iterable[str], claimed: Mapping[int, float]
    ) -> list[Wakeup]:
        by_partition: dict[int, list[str]] = defaultdict(list)
        for conversation_id in conversation_ids:
            by_partition[partition_of(conversation_id)].append(conversation_id)
        return [
            wakeup
            for partition, overdue in by_partition.items()
            for first in range(0, len(overdue), MAX_REDISPATCHED)
            for wakeup in self._redispatch(
                partition, overdue[first : first + MAX_REDISPATCHED], claimed.get(partition)
            )
        ]

    def _redispatch(
        self, partition: int, conversation_ids: Sequence[str], claimed: float | None
    ) -> list[Wakeup]:
        found = self._call(
            "redispatch",
            [due_key(partition)],
            [
                conversations_prefix(partition),
                turns_prefix(partition),
                self._grace,
                milliseconds(LONGEST_GRACE),
                "" if claimed is None else milliseconds(claimed),
                milliseconds(LONGEST_IN_LINE),
                uuid.uuid4().hex,
                *conversation_ids,
            ],
        )
        texts = [part.decode() for part in found]
        return [
            Wakeup(conversation_id=conversation_id, turn_id=turn_id, agent=agent)
            for conversation_id, turn_id, agent in zip(
                texts[::3], texts[1::3], texts[2::3], strict=True
            )
        ]

    @override
    def rouse(self, provider: str) -> int:
        waiting = [waiting_key(p, provider) for p in range(PARTITIONS)]
        with translate_errors(self._settings.redis_url):
            pipeline = self._client.pipeline(transaction=False)
            for key in waiting:
                pipeline.scard(key)
            counts: Sequence[int] = pipeline.execute()
        spread = milliseconds(min(sum(counts) / ROUSED_A_SECOND, LONGEST_ROUSE))
        left = [partition for partition, count in enumerate(counts) if count]
        woken = 0
        while left:
            calls: list[Call] = [
                ([waiting[p], due_key(p)], self._rousing(p, provider, spread)) for p in left
            ]
            with translate_errors(self._settings.redis_url):
                found = self._scripts.call_many("rouse", calls)
            woken += sum(number for number, _ in found)
            left = [p for p, (_, more) in zip(left, found, strict=True) if more]
        return woken

    def _rousing(self, partition: int, provider: str, spread: int) -> list[Any]:
        prefixes = (conversations_prefix(partition), turns_prefix(partition))
        # Shifted by partition, so that the turns of all partitions do not begin at the same moment.
        return [*prefixes, provider, MAX_REDISPATCHED, spread, partition / PARTITIONS]

    @override
    def hasten(self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)) -> int:
        calls: list[Call] = [
            ([due_key(p)], [conversations_prefix(p), turns_prefix(p), limit]) for p in partitions
        ]
        return sum(number or 0 for number in self._each("hasten", calls))
