"""What keeps turns moving that no worker carries on, in Redis; the sweep's part of `TurnStore`."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import redis

from agentapi.ids import PARTITIONS, partition_of
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import (
    ELECTION_KEY,
    SWEPT_KEY,
    claimed_key,
    conversation_keys,
    conversations_prefix,
    due_key,
    turn_keys,
    turns_prefix,
)
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.answers import LONGEST_GRACE, LONGEST_IN_LINE, Election, Perished
from agentapi.stores.calls import Errand
from agentapi.stores.lease import Wakeup
from agentapi.stores.redis.due import DueReader
from agentapi.stores.redis.endings import RedisEndings
from agentapi.stores.redis.values import milliseconds
from agentapi.stores.refusals import unexpected

AT_ONCE: Final = 100
"""Overdue conversations that one script looks at: Redis does nothing else meanwhile."""


class RedisSweep(RedisEndings):
    """The part of the `TurnStore` that the sweep and the watchers of processes use."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        super().__init__(settings, client, scripts)
        self._due = DueReader()

    def orphan(self, process: str) -> list[str]:
        """See `TurnStore.orphan`."""
        calls: list[Call] = [
            ([due_key(partition)], [process, conversations_prefix(partition)])
            for partition in range(PARTITIONS)
        ]
        with translate_errors(self._settings.redis_url):
            freed = self._scripts.call_many("orphan", calls)
        return [conversation.decode() for found in freed for conversation in found]

    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        """See `TurnStore.perish`."""
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

    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        """See `TurnStore.elect`."""
        elected, age = self._call(
            "elect", [ELECTION_KEY, SWEPT_KEY], [candidate, milliseconds(ttl), int(swept)]
        )
        return Election(elected=elected == 1, since_sweep=None if age < 0 else age / 1000)

    def since_sweep(self) -> float | None:
        """See `TurnStore.since_sweep`."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.get(SWEPT_KEY)
        pipeline.time()
        with translate_errors(self._settings.redis_url):
            swept, (seconds, micros) = pipeline.execute()
        if swept is None:
            return None
        return float(max(0.0, seconds + micros / 1e6 - int(swept) / 1000))

    def resign(self, candidate: str) -> None:
        """See `TurnStore.resign`."""
        self._call("resign", [ELECTION_KEY], [candidate])

    def overdue(self, limit: int = 1000) -> list[str | Errand]:
        """See `TurnStore.overdue`."""
        found = self._call("overdue", [due_key(p) for p in range(PARTITIONS)], [limit])
        members = zip(found[::2], found[1::2], strict=True)
        return self._due.read((number - 1, member) for number, member in members)

    def claimed(self) -> dict[int, float]:
        """See `TurnStore.claimed`."""
        with translate_errors(self._settings.redis_url):
            times: Any = self._client.mget([claimed_key(p) for p in range(PARTITIONS)])
        return {p: int(time) / 1000 for p, time in enumerate(times) if time and time.isdigit()}

    def redispatch(
        self, conversation_ids: Iterable[str], claimed: Mapping[int, float]
    ) -> list[Wakeup]:
        """See `TurnStore.redispatch`."""
        by_partition: dict[int, list[str]] = defaultdict(list)
        for conversation_id in conversation_ids:
            by_partition[partition_of(conversation_id)].append(conversation_id)
        return [
            wakeup
            for partition, overdue in by_partition.items()
            for first in range(0, len(overdue), AT_ONCE)
            for wakeup in self._redispatch(
                partition, overdue[first : first + AT_ONCE], claimed.get(partition)
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

    def hasten(self, limit: int = 1000) -> int:
        """See `TurnStore.hasten`."""
        calls: list[Call] = [
            ([due_key(p)], [conversations_prefix(p), turns_prefix(p), limit])
            for p in range(PARTITIONS)
        ]
        with translate_errors(self._settings.redis_url):
            return sum(self._scripts.call_many("hasten", calls))
