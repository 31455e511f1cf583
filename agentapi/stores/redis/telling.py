"""Ends for which hooks must be called, in Redis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from typing_extensions import override

from agentapi.errors import UnreadableRecord
from agentapi.ids import PARTITIONS, partition_of_turn
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import hooked_key, turn_keys, untold_key
from agentapi.redis.scripts import Call
from agentapi.stores.redis.codec import pairs, turn_from_hash
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.values import milliseconds
from agentapi.stores.telling import (
    FIRST_DELAY,
    LONGEST_DELAY,
    MOST_FAILURES,
    HookStore,
    Telling,
    UntoldEnd,
)
from agentapi.turns import Turn


class RedisHooks(RedisPart, HookStore):
    """The `HookStore` in Redis. Safe to share between threads."""

    @override
    def expect(self, agents: Collection[str], seconds: float) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            for agent in agents:
                pipeline.set(hooked_key(partition, agent), "", px=milliseconds(seconds))
        with translate_errors(self._settings.redis_url):
            pipeline.execute()

    @override
    def untold(self) -> list[int]:
        keys = [untold_key(p) for p in range(PARTITIONS)]
        if self._scripts.on_cluster:
            each = self._each("untold", [([key], []) for key in keys])
            return [partition for partition, found in enumerate(each) if found]
        found = self._call("untold", keys, [])
        return [number - 1 for number in found]

    @override
    def tell(
        self, partition: int, agents: Collection[str], *, call: str, seconds: float, most: int
    ) -> Sequence[UntoldEnd]:
        args = [call, milliseconds(seconds), most, *sorted(agents)]
        with translate_errors(self._settings.redis_url):
            found = self._scripts.call("tell", [untold_key(partition)], args)
        return [
            _untold(entry.decode(), fields)
            for entry, fields in zip(found[::2], found[1::2], strict=True)
        ]

    @override
    def hold(self, ends: Sequence[UntoldEnd], seconds: float) -> None:
        by_partition: dict[int, list[str]] = defaultdict(list)
        for end in ends:
            by_partition[partition_of_turn(end.turn_id)].append(end.entry)
        calls: list[Call] = [
            ([untold_key(partition)], [milliseconds(seconds), *entries])
            for partition, entries in by_partition.items()
        ]
        with translate_errors(self._settings.redis_url):
            self._scripts.call_many("hold", calls)

    @override
    def told(self, end: UntoldEnd, *, failed: bool, call: str) -> Telling:
        outcome = "failed" if failed else "told"
        patience = [milliseconds(FIRST_DELAY), milliseconds(LONGEST_DELAY), MOST_FAILURES]
        keys = [untold_key(partition_of_turn(end.turn_id)), turn_keys(end.turn_id).turn]
        with translate_errors(self._settings.redis_url):
            answer = self._scripts.call("told", keys, [end.entry, outcome, call, *patience])
        return Telling(answer[0].decode())


def _untold(entry: str, fields: Sequence[bytes]) -> UntoldEnd:
    turn_id, number, agent = entry.split(":", 2)
    turn: Turn | None
    try:
        turn = turn_from_hash(turn_id, pairs(fields))
    except UnreadableRecord:
        turn = None
    return UntoldEnd(
        entry=entry, end_id=f"{turn_id}:{number}", turn_id=turn_id, agent=agent, turn=turn
    )
